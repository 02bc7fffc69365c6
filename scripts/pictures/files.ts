/** The pictures of the docs, and the pages that show them, as they should be. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { glanceSvg, overviewSvg, stepsSvg, timelineSvg } from "./draw.js";
import { glance, overview, type Ratio, steps, timelines } from "./sources.js";

const folder = "docs/pictures";

/** File below the root of the project, and its text. */
type TextFile = readonly [path: string, text: string];

/** All pictures, and all pages with their alternative texts. @param root the root of the project, with a slash */
function pictureFiles(root: string): TextFile[] {
  const read = (path: string): string => readFileSync(join(root, path), "utf8");
  const compared = glanceOf(read("docs/benchmarks/results.md"));
  const pictures = [
    ...Object.entries(steps).map(([name, each]) => ({ name, inWords: each.inWords, svg: stepsSvg(each) })),
    ...Object.entries(timelines).map(([name, each]) => ({ name, inWords: each.inWords, svg: timelineSvg(each) })),
    { name: "overview", inWords: overview.inWords, svg: overviewSvg(overview) },
    { name: "glance", inWords: compared.inWords, svg: glanceSvg(compared) },
  ];
  const pages = readdirSync(join(root, "docs")).filter((name) => name.endsWith(".md"));
  return [
    ...pictures.map(({ name, svg }): TextFile => [`${folder}/${name}.svg`, svg]),
    ...pages.map((page): TextFile => {
      const text = read(`docs/${page}`).replace(/!\[[^\]]*\](?=\(pictures\/([\w-]+)\.svg\))/g, (shown, name) => {
        const picture = pictures.find((each) => each.name === name);
        return picture === undefined ? shown : `![${picture.inWords}]`;
      });
      return [`docs/${page}`, text];
    }),
  ];
}

export function writePictures(root: string): void {
  const files = pictureFiles(root);
  rmSync(join(root, folder), { recursive: true, force: true });
  mkdirSync(join(root, folder));
  for (const [path, text] of files) writeFileSync(join(root, path), text);
}

/** A line for each picture that is not as its source, has none, or has another text on a page. */
export function pictureProblems(root: string): string[] {
  const files = new Map(pictureFiles(root));
  const committed = readdirSync(join(root, folder)).map((name) => `${folder}/${name}`);
  return [
    ...committed.filter((path) => !files.has(path)).map((path) => `extra: ${path}`),
    ...[...files.keys()]
      .filter((path) => path.endsWith(".svg") && !committed.includes(path))
      .map((path) => `missing: ${path}`),
    ...[...files]
      .filter(([path, text]) => existsSync(join(root, path)) && readFileSync(join(root, path), "utf8") !== text)
      .map(([path]) => `changed: ${path}`),
  ];
}

/** The comparison with others, by the page of results. */
function glanceOf(results: string) {
  const ratios = glance.ratios.map((wanted) => [wanted[0], ratioOf(results, wanted)] as const);
  const named = (chosen: typeof ratios): string => {
    const names = [...new Set(chosen.map(([label]) => label.split(":")[0]!))];
    const values = chosen.map(([, ratio]) => ratio);
    return `${names.join(", ")} (${Math.min(...values)}× to ${Math.max(...values)}×)`;
  };
  const isAhead = ([, ratio]: (typeof ratios)[number]): boolean => ratio >= 1;
  const [ahead, behind] = [ratios.filter(isAhead), ratios.filter((each) => !isAhead(each))];
  return { title: glance.title, inWords: `Hawser is ahead of ${named(ahead)}, and behind ${named(behind)}`, ratios };
}

/** A ratio, such as 4.18. @throws RangeError if the page of results does not have it */
function ratioOf(results: string, [, section, result, row, baseline]: Ratio): number {
  const ofSection = results.split(/^## /m).find((part) => part.startsWith(`${section}\n`)) ?? "";
  const tables = ofSection.split("\n\n").map((part) => part.split("\n").map((line) => line.split(" | ")));
  // The second column of a table is the result with its unit.
  const table = tables.find(([head]) => head?.[1]?.replace(/, [^,]+$/, "") === result);
  const column = table?.[0]?.indexOf(baseline) ?? -1;
  const ratio = Number.parseFloat(table?.find(([first]) => first === `| ${row}`)?.[column + 1] ?? "");
  if (column < 0 || !(ratio > 0)) {
    throw new RangeError(
      `results.md has no ratio to ${baseline}: ${section}, ${result}, ${row}. Change it in sources.ts.`,
    );
  }
  return ratio;
}
