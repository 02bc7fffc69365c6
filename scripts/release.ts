/**
 * `npm run release -- VERSION`: makes a release in a clone, so that the checkout stays as it is. See docs/releasing.md.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { readHome } from "./home.js";

const usage = `Usage: npm run release -- VERSION [--dry-run [--skip-ci] | --publish]

Makes a release of the last commit, in a clone: sets the version, closes the changelog and freezes the migration, in a
commit with a tag; runs .ci/run; makes docs, package, SBOM, image and chart. The last step pushes the commit and the
tag. Then .github/workflows/release.yml makes all of it again, and publishes it.

  --dry-run  all but the last step; says what would be published where, and what this machine lacks
  --skip-ci  without .ci/run, which takes half an hour; for a dry run
  --publish  for the workflow: makes and publishes what the tag of VERSION has

GITHUB_REPOSITORY=OWNER/NAME is the home of the project, which the addresses in the package, of the image, of the chart
and of the docs follow. GitHub sets it in a workflow. Default: OWNER/hawser, but none with --publish`;

/** Files that name the version, beside those that `npm version` writes. */
const filesWithVersion = ["deploy/chart/Chart.yaml", "examples/service/package.json", "examples/typed/package.json"];

interface Settings {
  readonly version: string;
  readonly isDry: boolean;
  readonly isPublished: boolean;
  readonly skipsCi: boolean;
  /** URL of the project's page, such as `https://github.com/OWNER/NAME`. */
  readonly home: string;
  /** Address of the image without its tag. */
  readonly image: string;
  /** URL of the documentation, such as `https://OWNER.github.io/NAME/`. */
  readonly site: string;
}

/** Part of a release that is published by itself, with its command lines in the clone. */
interface Product {
  readonly name: string;
  readonly address: string;
  /** Command that succeeds on a machine that can make and publish it. */
  readonly needs?: string;
  readonly make?: string;
  readonly publish: string;
}

/** @throws Error that names the valid values */
function readSettings(): Settings | "help" {
  const { values, positionals } = parseArgs({
    options: {
      "dry-run": { type: "boolean", default: false },
      "skip-ci": { type: "boolean", default: false },
      publish: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
    allowPositionals: true,
  });
  const { "dry-run": isDry, "skip-ci": skipsCi, publish: isPublished, help } = values;
  if (help) return "help";
  const version = positionals.join(" ");
  if (!/^\d+\.\d+\.\d+$/.test(version)) throw new Error(`"${version}" is not a version such as 0.2.0.`);
  if (isDry && isPublished) throw new Error("--dry-run and --publish exclude each other.");
  if (skipsCi && !isDry) throw new Error("--skip-ci is only for --dry-run.");
  const { owner, name, url } = readHome(isPublished ? "" : undefined);
  // Registries of images and names of hosts know only small letters.
  const image = `ghcr.io/${owner}/${name}`.toLowerCase();
  const site = `https://${owner.toLowerCase()}.github.io/${name}/`;
  return { version, isDry, isPublished, skipsCi, home: url, image, site };
}

/** In the order of publishing: last is what a second attempt cannot publish again. */
function productsOf({ version, home, image, site }: Settings): Product[] {
  const tarball = `hawser-${version}.tgz`;
  const charts = image.replace(/[^/]+$/, "charts");
  const commit = `git -c user.name=release -c user.email=release@localhost commit --quiet --message v${version}`;
  const label = `org.opencontainers.image.source=${home}`;
  return [
    {
      name: "image",
      address: `${image}:${version}`,
      needs: "docker info",
      make: `docker build --file deploy/Dockerfile --label ${label} --tag ${image}:${version} .`,
      publish: `docker push ${image}:${version}`,
    },
    {
      name: "chart",
      address: `oci://${charts}/hawser:${version}`,
      needs: "helm version",
      make: "helm package deploy/chart --destination chart",
      publish: `helm push chart/${tarball} oci://${charts}`,
    },
    {
      name: "docs",
      address: site,
      needs: "gh --version",
      publish:
        `gh auth setup-git && cd dist-docs/site && touch .nojekyll && git init --quiet --initial-branch gh-pages && ` +
        `git add --all && ${commit} && git push --force ${home}.git gh-pages`,
    },
    {
      name: "package",
      address: `https://www.npmjs.com/package/hawser/v/${version}`,
      publish: `npm publish ./${tarball} --provenance --access public`,
    },
    {
      name: "release, with the package and its SBOM",
      address: `${home}/releases/tag/v${version}`,
      needs: "gh --version",
      publish:
        `gh release create v${version} --verify-tag --title v${version} --notes-file notes.md ` +
        `${tarball} hawser-${version}.cdx.json`,
    },
  ];
}

function git(...args: readonly string[]): string {
  return execFileSync("git", args, { encoding: "utf8" }).trimEnd();
}

/** @throws Error if the command line fails */
function run(command: string): void {
  console.log(`\n=== ${command}`);
  const { status } = spawnSync(command, { shell: true, stdio: ["ignore", "inherit", "inherit"] });
  if (status !== 0) throw new Error(`Failed with status ${status}, in ${process.cwd()}: ${command}`);
}

/** @throws Error if the file does not have the text */
function replace(file: string, text: string, by: string): void {
  const before = readFileSync(file, "utf8");
  if (!before.includes(text)) throw new Error(`${file} does not have ${JSON.stringify(text)}.`);
  writeFileSync(file, before.replaceAll(text, by));
}

/** @throws Error with the remedy if the last commit cannot become that release */
function checkCheckout({ version, isPublished }: Settings): void {
  const changes = git("status", "--porcelain");
  if (changes !== "") throw new Error(`Commit these changes first, since a release has the last commit:\n${changes}`);
  const tag = `v${version}`;
  const isTagged = git("tag", "--points-at", "HEAD").split("\n").includes(tag);
  if (isPublished && !isTagged) throw new Error(`The commit is not ${tag}. Publish from a checkout of the tag.`);
  if (!isPublished && git("tag", "--list", tag) !== "") throw new Error(`${tag} exists. Choose a newer version.`);
}

function commitVersion(version: string): void {
  const { version: before } = JSON.parse(readFileSync("package.json", "utf8")) as { version: string };
  for (const file of filesWithVersion) replace(file, before, version);
  const today = new Date().toISOString().slice(0, 10);
  replace("CHANGELOG.md", "## [Unreleased]\n", `## [Unreleased]\n\n## [${version}] - ${today}\n`);
  run(`npm version ${version} --no-git-tag-version --allow-same-version`);
  run("npm run freeze-migration && npm run generate");
  run(`git add --all && git commit --quiet --message "Version ${version}"`);
}

/** Makes the package, its SBOM and the notes of the release, with the addresses of the project's home. */
function makePackage({ version, home, image }: Settings): void {
  const url = `git+${home}.git`;
  run(`npm pkg set repository.type=git repository.url=${url} homepage=${home}#readme bugs.url=${home}/issues`);
  replace("deploy/chart/values.yaml", "repository: hawser\n", `repository: ${image}\n`);
  run("npm pack");
  // `npm sbom --omit dev` would also leave out what both users and a package for development have, such as pg.
  run("npm ci --omit dev --ignore-scripts && npm pkg delete devDependencies");
  run(`npm sbom --sbom-format cyclonedx > hawser-${version}.cdx.json`);
  const sections = readFileSync("CHANGELOG.md", "utf8").split(/^## /m);
  const section = sections.find((text) => text.startsWith(`[${version}]`)) ?? "";
  writeFileSync("notes.md", `${section.replace(/.*/, "").trim()}\n`);
}

function release(settings: Settings): void {
  const { version, isDry, isPublished, skipsCi } = settings;
  checkCheckout(settings);
  const origin = isDry || isPublished ? "origin" : git("remote", "get-url", "origin");
  const products = productsOf(settings);
  const lacking = products.filter(({ needs = "true" }) => spawnSync(needs, { shell: true }).status !== 0);
  if (isPublished && lacking.length > 0) {
    throw new Error(`These commands must succeed first: ${lacking.map(({ needs }) => needs).join(", ")}`);
  }

  const directory = mkdtempSync(join(tmpdir(), "hawser-release-"));
  // As a checkout usually is: Postgres and some tests run as another user.
  chmodSync(directory, 0o755);
  const clone = join(directory, "hawser");
  run(`git clone --quiet . ${clone}`);
  process.chdir(clone);
  run("npm ci --ignore-scripts");
  if (!isPublished) {
    commitVersion(version);
    if (!skipsCi) run(".ci/run");
    // Behind .ci/run, which compares the spec with that of the last tag.
    run(`git tag v${version}`);
  }
  // Before the package, which leaves the clone without the dependencies of development.
  run(`npm run docs -- --base ${new URL(settings.site).pathname}`);
  makePackage(settings);
  for (const product of products) {
    if (product.make !== undefined && !lacking.includes(product)) run(product.make);
  }

  const push = `git push --atomic ${origin} HEAD:main v${version}`;
  if (isPublished) {
    for (const { publish } of products) run(publish);
  } else if (!isDry) {
    run(push);
  } else {
    console.log(`\nA dry run: nothing has left this machine. The release is in ${clone}.\n`);
    console.log(`The last step would be: ${push}\nFor the tag, the workflow would publish:`);
    for (const { name, address, publish } of products) console.log(`\n  ${name}: ${address}\n    ${publish}`);
    console.log();
    for (const { name, needs } of lacking) console.log(`This machine lacks a program for the ${name}: ${needs} fails.`);
  }
  rmSync(isDry ? "node_modules" : join(clone, ".."), { recursive: true, force: true });
}

let settings: Settings | "help";
try {
  settings = readSettings();
} catch (error) {
  console.error(`${(error as Error).message}\n${usage}`);
  process.exit(64);
}
if (settings === "help") {
  console.log(usage);
} else {
  try {
    release(settings);
  } catch (error) {
    console.error((error as Error).message);
    process.exitCode = 1;
  }
}
