/**
 * `npm run docs`: builds the site of the documentation. See docs/.vitepress/config.ts.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { build, serve } from "vitepress";
import { cacheDirectory } from "../src/development/dev/index.js";
import { writeDemo } from "./docs/demo.js";
import { demoFolder, outputFolder, readPages, referenceFolder } from "./docs/pages.js";
import { installPackage } from "./npm-cache/install-package.js";
import { entryPointsOf, readManifest } from "./package/manifest.js";

const usage = `Usage: npm run docs [-- [--base PATH] [--serve]]

Builds the site of the documentation in ${outputFolder}/site: the pages that docs/README.md lists, the reference of the entry
points, and a demo of the operator's page, which it records from a busy system over a Postgres and a NATS of its own. The first build installs TypeDoc from the npm registry into HAWSER_CACHE_DIR.

  --base PATH  where a server has the site, such as /hawser/. Default: /
  --serve      serves the site at http://localhost:4173 after the build, until Ctrl+C

Links to sources lead to the repository, GITHUB_REPOSITORY=OWNER/NAME. Default: OWNER/hawser`;

/** TypeDoc needs the API of the compiler, which TypeScript 7 lacks: both are installed apart, with TypeScript 6. */
const typedoc = "0.28.20";
const besideTypedoc = ["typedoc-plugin-markdown@4.14.1", "typescript@6.0.3"];

const root = fileURLToPath(new URL("..", import.meta.url));
const output = join(root, outputFolder);

/** Writes a page for each entry point. */
function writeReference(): void {
  const place = join(cacheDirectory(), "typedoc", [`typedoc@${typedoc}`, ...besideTypedoc].join("+"));
  const program = join(installPackage("typedoc", typedoc, place, besideTypedoc), "bin/typedoc");
  const plugin = join(dirname(dirname(dirname(program))), "typedoc-plugin-markdown/dist/index.js");
  const entries = join(output, "entries");
  mkdirSync(entries, { recursive: true });
  for (const [name, { types }] of entryPointsOf(readManifest(root))) {
    const source = types.replace("./dist/", "../../").replace(".d.ts", ".js");
    const text = `/** @module ${name} */\nexport * from "${source}";\n`;
    writeFileSync(join(entries, `${name.replace("/", "-")}.ts`), text);
  }
  const typedocOptions = {
    entryPoints: ["entries/*.ts"],
    plugin: [plugin],
    out: join(root, referenceFolder),
    readme: "none",
    sort: ["source-order"],
    disableSources: true,
    excludeExternals: true,
    // The compiler checks the sources, and a type that no entry point exports is named without a link.
    skipErrorChecking: true,
    logLevel: "Error",
    flattenOutputFiles: true,
    outputFileStrategy: "modules",
    hideBreadcrumbs: true,
    hidePageHeader: true,
    useCodeBlocks: true,
    parametersFormat: "table",
  };
  const configuration = join(output, "tsconfig.json");
  writeFileSync(configuration, JSON.stringify({ extends: "../tsconfig.json", include: ["entries"], typedocOptions }));
  execFileSync(process.execPath, [program, "--tsconfig", configuration], { cwd: root, stdio: "inherit" });
}

/** @throws Error that says which argument is wrong */
function readArguments() {
  const { values } = parseArgs({
    options: {
      base: { type: "string", default: "/" },
      serve: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (!/^\/(.*\/)?$/.test(values.base)) throw new Error(`--base is "${values.base}"; it must begin and end with /.`);
  return values;
}

async function main(base: string, isServed: boolean): Promise<void> {
  const folder = join(root, "docs");
  // Before the output, so that a page that is missing is known at once.
  readPages(root);
  rmSync(output, { recursive: true, force: true });
  console.log("The reference of the entry points, by TypeDoc …");
  writeReference();
  console.log("The site, by VitePress …");
  await build(folder, { base });
  console.log("The demo of the operator's page …");
  await writeDemo(join(output, "site", demoFolder));
  console.log(`The site is in ${join(output, "site")}.`);
  if (isServed) await serve({ root: folder, base, port: 4173 });
}

let values: ReturnType<typeof readArguments>;
try {
  values = readArguments();
} catch (error) {
  console.error(`${(error as Error).message}\n${usage}`);
  process.exit(64);
}
if (values.help) {
  console.log(usage);
} else {
  try {
    await main(values.base, values.serve);
  } catch (error) {
    console.error((error as Error).message);
    process.exitCode = 1;
  }
}
