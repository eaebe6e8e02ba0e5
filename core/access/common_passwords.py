"""Passwords that guessers try first, of those long enough to be allowed at all."""

from __future__ import annotations

import re
from typing import Final

_WORDS_TEXT: Final = """
abc abcd abcde abcdef abcdefg abcdefgh abcdefghi access admin adminadmin administrator adobe amanda andrea andrew
angel angela anthony apple arsenal asdf asdfasdf asdfgh asdfghj asdfghjk asdfghjkl ashley austin babygirl backup
bailey barcelona baseball basketball batman beautiful benjamin biteme blahblah blink bond brandon buster
butterfly carlos changeit changeme charles charlie chelsea chicken chocolate christian christopher cisco company
computer contrasena cookie corvette cowboys dallas daniel database default demo demodemo diamond dolphin dragon
dubsmash eagles elephant elizabeth explorer fallback family ferrari flower football forever freedom fuckyou
gabriel gandalf geheim george ginger godzilla golfer google guest guitar hallo hallohallo hannah harley heather
hello hellohello hockey hunter iloveyou internet jasmine jennifer jessica jonathan jordan joshua junior justin
kennwort killer kubernetes lakers letmein letmeinnow liverpool login loginlogin london lovely loveme lover
manager manchester marina martin marvin master matthew maverick mercedes merlin michael michelle microsoft
midnight minecraft monkey monster motdepasse mustang mynoob mypassword myspace naruto nathan newpass newpassword
nicholas nicole nopassword oracle pass passpass passphrase passw0rd password passwordpassword passwort patrick
pepper phoenix player please pokemon postgres princess private pulvinar purple q1w2e3r4t5y qazwsx qazwsxedc
qazxsw qwer qwerasdf qwert qwerty qwertyui qwertyuio qwertyuiop qwertz qwertzuiop rachel raider rainbow ranger
rangers richard robert rockyou root rootroot samantha sample samsung sandra scooter secret security senha server
service shadow silver slipknot soccer sommer spiderman spring startrek starwars success summer sunshine superman
superuser support swordfish sysadmin system taylor temp temporary tennis test testing testtest thomas thunder
tigger tinkerbell toor trustno user username vanessa victoria virginia wachtwoord welcome whatever william winner
winter wizard yankees yellow zaq1zaq zxcvbn zxcvbnm
"""
_WHOLE_TEXT: Final = """
123456a 123456qwerty 12345qwert 1234abcd 1234qwer 123abc123 123qweasd 123qweasdzxc 1a2b3c4d 1q2w3e4r 1q2w3e4r5t
1q2w3e4r5t6y 1qaz2wsx 1qaz2wsx3edc 1qazxsw2 4dm1n1strator 8675309jenny a1b2c3d4 a1b2c3d4e5 aa123456 aaaa1111
abc123abc abcd1234 adm1nadm1n asdf1234 ch4ngem3 ch@ngeme changeme1 correct-horse-battery-staple
correcthorsebatterystaple fuckyou1 iloveyou2 l3tm31n letm3in ncc1701d ncc1701e p4ssw0rd p@ssw0rd p@ssword
pa$$w0rd pa$$word pa55w0rd pa55word passw0rd q1w2e3r4 q1w2e3r4t5 qwe123qwe qweasdzxc qwer1234 r00tr00t rootroot1
s3cret1 t3stt3st thx1138thx trustn01 trustno1 w3lcome welc0me zaq12wsx zaq1xsw2 zxcv1234
"""
_WORDS: Final = frozenset(_WORDS_TEXT.split())
"""What stands before digits and signs at the end: `password`, `Password1!` and `PASSWORD2024` are one."""
_WHOLE: Final = frozenset(_WHOLE_TEXT.split())
_LONG: Final = 32
_TAIL: Final = re.compile(r"[^a-z]+$")
_ROWS: Final = (
    "01234567890123456789",
    "98765432109876543210",
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiopasdfghjklzxcvbnm",
)


def is_common(password: str) -> bool:
    """Whether it is one of them, whatever its capitals, and what digits and signs follow it."""
    plain = password.strip().lower()
    if plain in _WHOLE or _TAIL.sub("", plain) in _WORDS:
        return True
    if len(plain) <= _LONG and len(set(plain)) <= 2:  # aaaaaaaa, 12121212
        return True
    half = len(plain) // 2
    repeated = plain[:half] * 2 == plain and (plain[:half] in _WORDS or plain[:half].isdigit())
    return repeated or any(plain in row for row in _ROWS)
