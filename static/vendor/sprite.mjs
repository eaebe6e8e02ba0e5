// One SVG of symbols from the icons named in a list, a line each: `node sprite.mjs FOLDER LIST`. A name may end in
// "-filled", which is the other set.
import { readFileSync } from "node:fs";

const [folder, list] = process.argv.slice(2);
const symbols = readFileSync(list, "utf8").split("\n").filter(Boolean).map((name) => {
  const filled = name.endsWith("-filled");
  const file = filled ? `filled/${name.slice(0, -"-filled".length)}` : `outline/${name}`;
  const svg = readFileSync(`${folder}/${file}.svg`, "utf8");
  const inner = svg.replace(/<!--[\s\S]*?-->/g, "").replace(/^[\s\S]*?<svg[^>]*>|<\/svg>\s*$/g, "")
    .replace(/<path stroke="none" d="M0 0h24v24H0z" fill="none"\s*\/>/, "").replace(/\s*\n\s*/g, "");
  const paint = filled ? 'fill="currentColor"' :
    'fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"';
  return `<symbol id="${name}" viewBox="0 0 24 24" ${paint}>${inner}</symbol>`;
});
process.stdout.write(`<svg xmlns="http://www.w3.org/2000/svg">\n${symbols.join("\n")}\n</svg>\n`);
