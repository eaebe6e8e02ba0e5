"""One's own second factor: an authenticator app."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.dependencies import House, Viewer, caller_of
from schemas.auth import EnrolAnswer, EnrolRequest, RecoveryCodes, SecondFactorAnswer, SecondFactorRequest

router = APIRouter(prefix="/auth/totp", tags=["auth"])


@router.get("", summary="My second factor")
async def show(principal: Viewer, house: House) -> SecondFactorAnswer:
    """Whether a code is asked for at sign-in, since when, and how many recovery codes are left."""
    return SecondFactorAnswer.model_validate(await house.access.own_account.second_factor(principal))


@router.post("", summary="Begin to set up a second factor")
async def begin(request: Request, body: EnrolRequest, principal: Viewer, house: House) -> EnrolAnswer:
    """Answer a secret for an authenticator app; it is asked for once `auth/totp/confirm` has seen a code of it."""
    enrolment = await house.access.own_account.begin_second_factor(
        principal, body.current_password, caller_of(request)
    )
    return EnrolAnswer.model_validate(enrolment)


@router.post("/confirm", summary="Switch the second factor on")
async def confirm(request: Request, body: SecondFactorRequest, principal: Viewer, house: House) -> RecoveryCodes:
    """Show that the app works; from then on it is asked for. Answers recovery codes, and ends other sessions."""
    codes = await house.access.own_account.confirm_second_factor(principal, body.code, caller_of(request))
    return RecoveryCodes(recovery_codes=codes)


@router.post("/recovery-codes", summary="Get new recovery codes")
async def renew(request: Request, body: SecondFactorRequest, principal: Viewer, house: House) -> RecoveryCodes:
    """Recovery codes in the place of those that are left."""
    codes = await house.access.own_account.renew_recovery_codes(principal, body.code, caller_of(request))
    return RecoveryCodes(recovery_codes=codes)


@router.post("/disable", status_code=204, summary="Switch the second factor off")
async def disable(request: Request, body: SecondFactorRequest, principal: Viewer, house: House) -> Response:
    """Ask for no code any more."""
    await house.access.own_account.drop_second_factor(principal, body.code, caller_of(request))
    return Response(status_code=204)
