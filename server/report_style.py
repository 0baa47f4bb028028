"""How reports look: one style sheet for light, dark and paper; knows no content."""

from __future__ import annotations

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data: 'self'; base-uri 'none'; form-action 'none'"
)
"""Content Security Policy of a page that fetches nothing."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2126; --quiet: #5b646e; --paper: #fbfaf8; --card: #fff;
--line: #dcdad5; --told: #1f5fa8; --proven: #1c7048; --alarm: #a8321f; --open: #7a5b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e5e1; --quiet: #a2a9b1; --paper: #14171a;
--card: #1c2024; --line: #343a40; --told: #83b7f2; --proven: #74cfa0; --alarm: #f59a88; --open: #e3c25f; }
} * { box-sizing: border-box; } body { margin: 0; background: var(--paper); color: var(--ink);
font: 1rem/1.6 "Segoe UI", system-ui, -apple-system, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC",
sans-serif; } main { max-width: 54rem; margin: 0 auto; padding: 3rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; font-weight: 650; letter-spacing: -.01em; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 2.5rem 0 .75rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 2rem 0 .5rem; } h4 { font-size: 1rem; margin: 0 0 .25rem; }
p { margin: 0 0 .35rem; max-width: 42rem; } .quiet, .quiet li, figcaption { color: var(--quiet);
font-size: .925rem; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .55rem .75rem .55rem 0;
border-bottom: 1px solid var(--line); overflow-wrap: anywhere; } th { width: 12rem; font-weight: 600;
padding-right: 1rem; } td p:last-child { margin-bottom: 0; } table.plain th { width: auto; }
a { color: inherit; text-underline-offset: .2em; } a:focus-visible, summary:focus-visible {
outline: 3px solid var(--told); outline-offset: 2px; } article { margin-top: 3rem; }
article > header { display: flex; flex-wrap: wrap; gap: 1.5rem; background: var(--card);
border: 1px solid var(--line); border-left: .4rem solid var(--tone); border-radius: .5rem;
padding: 1.25rem 1.5rem; } article > header > div { flex: 1 1 20rem; }
article > header > img { flex: 0 1 15rem; width: 15rem; height: auto; align-self: flex-start;
border-radius: .35rem; } article > header h2 { margin: 0; font-size: 1rem; font-weight: 600; color: var(--quiet);
} .verdict { font-size: 1.5rem; line-height: 1.25; font-weight: 650; margin: .25rem 0 1rem; color: var(--tone); }
.verdict b, .badge b { display: inline-grid; place-items: center; width: 1.35em; height: 1.35em;
border-radius: 50%; background: var(--tone); color: var(--card); font-size: .8em; margin-right: .3em; }
.badge { color: var(--tone); font-weight: 600; } .told { --tone: var(--told); }
.proven { --tone: var(--proven); } .alarm { --tone: var(--alarm); } .open { --tone: var(--open); }
dl { margin: 0; } dt { font-weight: 600; font-size: .875rem; color: var(--quiet); }
dd { margin: 0 0 .6rem; } .conflicts { border-left: .25rem solid var(--alarm); padding-left: 1rem;
margin-top: 1.5rem; } .conflicts h3 { margin-top: 0; } ul { margin: 0; padding-left: 1.2rem; }
.cards { list-style: none; padding: 0; display: grid; gap: 1rem; } .cards li { display: flex; flex-wrap: wrap;
gap: 1.25rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; }
.cards img { width: 10rem; height: 10rem; object-fit: cover; border-radius: .35rem; }
.cards div { flex: 1 1 16rem; } .cards p { font-size: .95rem; } img { max-width: 100%; height: auto; }
.cards:not(ul) { grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
figure { margin: 1rem 0; } svg { width: 100%; height: auto; display: block; border-radius: .35rem; }
.even { fill: #8882; } .odd { fill: #8884; } .marked { fill: var(--told); }
.bare { fill: var(--card); stroke: var(--ink); stroke-width: 1.5; } details { border-top: 1px solid var(--line);
padding: .6rem 0; margin-top: .5rem; } summary { font-weight: 600; cursor: pointer; }
details > *:not(summary) { margin-top: .6rem; } .tree, .tree ul { list-style: none; padding-left: 0; }
.tree ul { border-left: 2px solid var(--line); margin: .5rem 0 0 .4rem; padding-left: 1rem; }
.tree li { margin-bottom: .5rem; } .tree span { display: block; color: var(--quiet); font-size: .925rem;
overflow-wrap: anywhere; } footer { margin-top: 3.5rem; border-top: 2px solid var(--line); font-size: .95rem; }
footer p { margin-top: 1rem; } code { overflow-wrap: anywhere; } .unbroken { white-space: nowrap; }
.exact td { font-size: .8rem; font-variant-numeric: tabular-nums; line-height: 1.9; }
@media print { @page { margin: 18mm; }
:root { --ink: #000; --quiet: #444; --paper: #fff; --card: #fff; --line: #bbb; --told: #1f5fa8;
--proven: #1c7048; --alarm: #a8321f; --open: #7a5b00; } main { max-width: none; padding: 0; }
article { break-before: page; } article:first-of-type { break-before: auto; }
.cards li, tr, header { break-inside: avoid; } body { font-size: 10.5pt; print-color-adjust: exact;
-webkit-print-color-adjust: exact; } }
"""
