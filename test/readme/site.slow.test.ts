/** The site of the documentation, as `npm run docs` builds it, in a real Chromium. */
import { createReadStream, existsSync, readdirSync, statSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openBrowser, type Tab, type TestBrowser } from "../page/support/browser.js";
import { projectDirectory, startCommand } from "../support/program.js";

const site = join(projectDirectory, "dist-docs/site");
const types: Record<string, string> = {
  ".css": "text/css",
  ".html": "text/html",
  ".js": "text/javascript",
  ".svg": "image/svg+xml",
  ".webp": "image/webp",
  ".woff2": "font/woff2",
};

let server: Server;
let browser: TestBrowser;
let origin: string;
beforeAll(async () => {
  const built = await startCommand("npm", ["run", "docs"], {
    cwd: projectDirectory,
    env: { GITHUB_REPOSITORY: "OWNER/hawser" },
  }).ended;
  expect(built, built.stderr).toMatchObject({ status: 0 });
  server = createServer(({ url }, response) => {
    const { pathname } = new URL(url!, "http://site");
    const path = join(site, decodeURIComponent(pathname.replace(/\/$/, "/index.html")));
    const isThere = existsSync(path) && statSync(path).isFile();
    response.writeHead(isThere ? 200 : 404, { "content-type": types[extname(path)] ?? "text/plain" });
    if (isThere) createReadStream(path).pipe(response);
    else response.end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  browser = await openBrowser();
  // The build takes a minute of one core.
}, 900_000);
afterAll(async () => {
  await browser?.[Symbol.asyncDispose]();
  server?.close();
});

/** Problems without images that are in the style sheet itself. */
const problemsOf = (tab: Tab) => tab.problems.filter((problem) => !problem.startsWith("request: data:"));

/** Facts of a page at a width of 400 pixels. */
interface Shown {
  readonly ids: readonly string[];
  readonly links: readonly string[];
  readonly brokenImages: readonly string[];
  readonly width: number;
}

const shown = `({
  ids: [...document.querySelectorAll("[id]")].map(({ id }) => id),
  links: [...document.querySelectorAll("a[href]")].map(({ href }) => href),
  brokenImages: [...document.images].filter((image) => image.complete && image.naturalWidth === 0).map(({ src }) => src),
  width: document.documentElement.scrollWidth,
})`;

it("every link and image leads somewhere, and no page is wider than a phone", async () => {
  await using tab = await browser.tab(origin, { width: 400 });
  const files = readdirSync(site, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".html"));
  const pages = new Map<string, Shown>();
  for (const file of files.filter((file) => file !== "404.html")) {
    await tab.open(`/${file}`);
    pages.set(`/${file}`, await tab.value<Shown>(shown));
  }
  expect(pages.size).toBeGreaterThan(70);
  const problems = [...pages].flatMap(([path, { links, brokenImages, width }]) => [
    ...(width > 400 ? [`${path} is ${width} px wide`] : []),
    ...brokenImages.map((image) => `${path} lacks ${image}`),
    ...links.filter((link) => !isThere(link, pages)).map((link) => `${path} links to ${link}`),
  ]);
  expect([...new Set(problems)]).toEqual([]);
  expect(problemsOf(tab)).toEqual([]);
});

/** True for an address of a page of the site with its anchor, of a file in the repository, and of other sites. */
function isThere(link: string, pages: ReadonlyMap<string, Shown>): boolean {
  const { origin: target, pathname, hash } = new URL(link);
  const [, file] = /^\/OWNER\/hawser\/blob\/HEAD\/(.*)$/.exec(pathname) ?? [];
  if (file !== undefined) return existsSync(join(projectDirectory, file));
  if (target !== origin) return true;
  const page = pages.get(pathname.replace(/\/$/, "/index.html"));
  return page !== undefined && (hash === "" || page.ids.includes(decodeURIComponent(hash.slice(1))));
}

it("has a demo of the operator's page with numbers and charts, to which the page about it leads", async () => {
  await using tab = await browser.tab(origin);
  await tab.open("/page.html");
  const link = await tab.value<string>(`document.querySelector('a[href$="demo/index.html"]').href`);
  await tab.open(new URL(link).pathname);
  expect(await tab.value("document.querySelector('h1').textContent")).toBe("Overview");
  expect(await tab.value("document.querySelectorAll('main svg').length")).toBeGreaterThan(3);
  expect(await tab.value("document.querySelector('main').textContent")).toMatch(/In\s+[\d.]+\s*\/s/);
  expect(await tab.value("document.querySelectorAll('form[action], form[method], script').length")).toBe(0);
  const texts = ["nobody serves it", "limited", "paused", "endpoint answered"];
  for (const text of texts) expect(await tab.value("document.querySelector('main').textContent")).toContain(text);
});

describe("the search", () => {
  it.each([
    ["retry a failed job", "retries"],
    ["run one job at a time per key", "jobs"],
    ["publish to NATS from SQL", "nats-from-sql"],
    ["schedule a job every night", "schedules"],
    ["enqueue in a Prisma transaction", "orms"],
    ["migrate from BullMQ", "from-job-queues"],
    ["deploy on Kubernetes", "kubernetes"],
    ["pgbouncer", "gateways"],
    ["OpenTelemetry traces", "tracing"],
    ["exactly once", "delivery"],
    ["waitFor", "api/hawser"],
  ])("finds for %j the page %s", async (question, page) => {
    // A tab of its own: the box keeps the last question, and shows its results until it has those of the next one.
    await using tab = await browser.tab(origin);
    await tab.open("/");
    await tab.page.locator(".VPNavBarSearch button").click();
    await tab.page.locator(".VPLocalSearchBox input").fill(question);
    await tab.page.waitForSelector(".VPLocalSearchBox a.result");
    const results = `[...document.querySelectorAll(".VPLocalSearchBox a.result")].slice(0, 3).map(({ pathname }) => pathname)`;
    expect(await tab.value(results)).toContain(`/${page}.html`);
    expect(problemsOf(tab)).toEqual([]);
  });
});

describe.each(["light", "dark"] as const)("in %s colours", (scheme) => {
  it.each(["/", "/jobs.html", "/reference/settings.html", "/api/hawser.nats.html"])(
    "axe finds nothing at %s",
    async (path) => {
      await using tab = await browser.tab(origin, { scheme });
      await tab.open(path);
      expect(await tab.value("document.documentElement.classList.contains('dark')")).toBe(scheme === "dark");
      expect(await tab.axe()).toEqual([]);
      expect(problemsOf(tab)).toEqual([]);
    },
  );
});
