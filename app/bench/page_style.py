"""The page's style. Light, or dark where the reader's system is; every pair of colours has a contrast of 4.5."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root{--paper:#fff;--ink:#1e293b;--soft:#526074;--line:#dbe2ea;--engine:#1d4ed8;--core:#b45309;--http:#0f766e;
--in-bar:#fff;--warn:#fef3c7;--warn-ink:#78350f}
@media (prefers-color-scheme:dark){:root{--paper:#0f172a;--ink:#e2e8f0;--soft:#a3b1c6;--line:#2b3a52;
--engine:#7db2ff;--core:#f0a94b;--http:#4fd1b8;--in-bar:#0f172a;--warn:#42310b;--warn-ink:#fde68a}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:68rem;margin:0 auto;padding:1.25rem 1rem 3rem}
h1{font-size:1.6rem;line-height:1.2;margin:.2rem 0 .6rem;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2.2rem 0 .2rem}
p{margin:.2rem 0 .9rem;max-width:46rem}
.about{max-width:none;color:var(--soft);overflow-wrap:anywhere}
.warning{background:var(--warn);color:var(--warn-ink);padding:.5rem .8rem;border-radius:.4rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem .8rem;margin:.8rem 0}
dt{font-weight:600;border-left:.9rem solid;padding-left:.5rem;line-height:1.5}
dt.engine{border-color:var(--engine)}dt.core{border-color:var(--core)}dt.http{border-color:var(--http)}
dd{margin:0}
.pair{display:grid;grid-template-columns:minmax(0,1fr);gap:1.2rem 2rem;align-items:start}
@media (min-width:56rem){.pair{grid-template-columns:minmax(0,1fr) minmax(0,1fr)}}
figure{margin:0}
svg{display:block;width:100%;max-width:34rem;height:auto;font:13px system-ui,sans-serif;overflow:visible}
svg text{fill:var(--ink)}svg .head{font-weight:600}svg .name{text-anchor:end}svg .note{fill:var(--soft)}
svg .inside{fill:var(--in-bar);text-anchor:middle;font-weight:600}
rect.engine{fill:var(--engine)}rect.core{fill:var(--core)}rect.http{fill:var(--http)}
.whisker{stroke:var(--soft);stroke-width:1.5;fill:none}
.scroll{overflow-x:auto}
.scroll:focus-visible{outline:2px solid var(--engine);outline-offset:2px}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums;min-width:100%}
caption{text-align:left;color:var(--soft);padding-bottom:.3rem}
th,td{padding:.28rem .6rem .28rem 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}
th{font-weight:600}tbody th{font-weight:400}
@media (max-width:30rem){table{font-size:.8rem}th,td{padding-right:.4rem}}
@media print{main{max-width:none}.scroll{overflow:visible}}
"""
