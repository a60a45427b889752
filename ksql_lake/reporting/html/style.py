"""The style and the script of the page: light and dark, down to the width of a phone."""

STYLE = """
:root{color-scheme:light dark;--bg:#fbfaf7;--card:#fff;--ink:#1b1f24;--soft:#5b6370;--line:#e4e1d9;--accent:#1f6f8b;
--error:#b3261e;--warning:#8a5a00;--note:#4a6075;--good:#2b6e44;--s0:#ebe8e0;--s1:#c5dfe4;--s2:#86bccb;--s3:#4189a3;
--s4:#17506a}
@media(prefers-color-scheme:dark){:root{--bg:#14171a;--card:#1b1f23;--ink:#e8e6e1;--soft:#a0a7b1;--line:#2d3338;
--accent:#5fb3ce;--error:#ff8a80;--warning:#f0b95a;--note:#9db4c9;--good:#7fcf9c;--s0:#262b30;--s1:#1d4350;--s2:#266a80;
--s3:#4298b4;--s4:#94dcf1}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue","Liberation Sans",sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1200px;margin:0 auto;padding:40px 24px 72px}
h1{font-size:30px;line-height:1.15;letter-spacing:-.02em;margin:2px 0 4px;font-weight:650;overflow-wrap:anywhere}
h2{font-size:18px;letter-spacing:-.01em;margin:52px 0 4px;font-weight:650}
h3{font-size:12px;margin:26px 0 8px;font-weight:600;color:var(--soft);text-transform:uppercase;letter-spacing:.06em}
p{margin:0 0 10px}.soft,figcaption{color:var(--soft)}.lead{color:var(--soft);margin-bottom:16px}
.totals{display:grid;grid-template-columns:repeat(auto-fit,minmax(112px,1fr));gap:18px 28px;margin:28px 0 0;
padding:18px 0;border-block:1px solid var(--line)}
.totals dt{font-size:13px;color:var(--soft)}.totals dd{margin:0;font-size:24px;line-height:1.25;font-weight:600;
letter-spacing:-.01em;white-space:nowrap}
ul.findings{list-style:none;margin:0;padding:0;border-top:1px solid var(--line)}
ul.findings li{display:grid;grid-template-columns:112px 1fr;gap:2px 16px;padding:10px 0;
border-bottom:1px solid var(--line);overflow-wrap:anywhere}
.kind{font-weight:600}.said{display:block;color:var(--soft)}.error{color:var(--error)}.warning{color:var(--warning)}.note{color:var(--note)}
.good{color:var(--good)}
.dot::before{content:"";display:inline-block;width:8px;height:8px;border-radius:50%;background:currentColor;
margin-right:8px}
td.findings{min-width:380px;overflow-wrap:anywhere}
.scroll{overflow-x:auto}wbr{display:none}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{padding:8px 14px 8px 0;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:500;color:var(--soft);font-size:13px;white-space:nowrap;vertical-align:bottom}
th:last-child,td:last-child{padding-right:0}
td.n,th.n{text-align:right;white-space:nowrap}td.w{white-space:nowrap}
td .under{display:block;font-size:12px;color:var(--soft)}td .phone{display:none}
th button{font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer}
th button:hover,th button:focus-visible{color:var(--ink)}
th[aria-sort] button{color:var(--ink)}th[aria-sort] button::after{content:" \\2191"}
th[aria-sort=descending] button::after{content:" \\2193"}
a{color:inherit;text-decoration-color:var(--line);text-underline-offset:3px}a:hover{text-decoration-color:currentColor}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
svg{display:block}svg rect{fill:var(--accent)}svg .hit{fill:transparent}svg g:hover .hit{fill:var(--line)}
svg .track{fill:var(--s0)}svg .error rect:not(.hit){fill:var(--error)}svg .warning rect:not(.hit){fill:var(--warning)}
svg.meter{width:100%;min-width:72px;height:5px;border-radius:3px;overflow:hidden;margin-top:6px}
svg.meter.error rect:not(.track){fill:var(--error)}
svg.columns{display:block;width:100%;border-bottom:1px solid var(--soft)}
figure{margin:14px 0 0}
figcaption{display:flex;justify-content:space-between;gap:2px 16px;font-size:12.5px;margin-top:5px}
figcaption span:not(.what):not(:only-child){white-space:nowrap}
.spark{width:110px}.spark svg.columns{border-bottom-color:var(--line)}
.strips{display:flex;flex-wrap:wrap;gap:6px 14px;margin-top:6px}
svg.calendar{max-width:100%}svg.calendar text{font-size:11px;fill:var(--soft)}
svg.calendar rect{width:14px;height:14px;rx:2px}
svg .s0{fill:var(--s0)}svg .s1{fill:var(--s1)}svg .s2{fill:var(--s2)}
svg .s3{fill:var(--s3)}svg .s4{fill:var(--s4)}
.legend{display:flex;flex-wrap:wrap;gap:4px 14px;font-size:12.5px;color:var(--soft);margin-top:8px}
.legend span{display:inline-flex;align-items:center;gap:3px}
.legend span svg{margin:0 1px}
ol.sizes{list-style:none;margin:10px 0 0;padding:0;display:grid;gap:8px 28px;
grid-template-columns:repeat(auto-fill,minmax(300px,1fr))}
ol.sizes li{font-size:14px}ol.sizes div{display:flex;justify-content:space-between;gap:12px}
ol.sizes .name{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
details{border-bottom:1px solid var(--line)}details:first-of-type{border-top:1px solid var(--line)}
summary{padding:12px 0;cursor:pointer;display:flex;flex-wrap:wrap;gap:2px 16px;align-items:baseline;list-style:none}
summary::-webkit-details-marker{display:none}
summary::before{content:"+";color:var(--soft);width:10px}details[open]>summary::before{content:"\\2212"}
summary strong{font-weight:600;overflow-wrap:anywhere}summary .soft{font-size:13.5px}
details>div{padding:0 0 26px 26px}
code{font:12.5px/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
footer{margin-top:56px;font-size:13px;color:var(--soft)}
@media(max-width:860px){wbr{display:inline}main{padding:24px 16px 48px}h1{font-size:25px}
.opt{display:none}td .phone{display:block;overflow-wrap:anywhere}details>div{padding-left:0}
ul.findings li{grid-template-columns:1fr}.totals{grid-template-columns:repeat(3,1fr);gap:14px 12px}
.totals dd{font-size:19px}th,td{padding-right:10px}ol.sizes{grid-template-columns:minmax(0,1fr)}
figcaption{flex-wrap:wrap}.what{order:-1;width:100%}}
"""

SCRIPT = """
document.querySelectorAll("table.sortable").forEach(function (table) {
  table.querySelectorAll("th button").forEach(function (button) {
    button.addEventListener("click", function () {
      var head = button.parentNode, body = table.tBodies[0], at = head.cellIndex;
      var down = head.getAttribute("aria-sort") === "ascending" ||
        (!head.hasAttribute("aria-sort") && head.classList.contains("n"));
      table.querySelectorAll("th").forEach(function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      var rows = Array.prototype.map.call(body.rows, function (row) {
        var cell = row.cells[at], given = cell.getAttribute("data-v");
        return { row: row, key: given === null ? cell.textContent : Number(given) };
      });
      rows.sort(function (a, b) {
        var order = typeof a.key === "number" ? a.key - b.key : a.key.localeCompare(b.key);
        return down ? -order : order;
      });
      rows.forEach(function (one) { body.appendChild(one.row); });
    });
  });
});
function unfold() {
  var target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); }
}
addEventListener("hashchange", unfold);
unfold();
"""
