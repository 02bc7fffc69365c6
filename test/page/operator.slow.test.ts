/**
 * An operator at a real Chromium: finds why messages died, has the function repaired, and retries them. With
 * `HAWSER_WRITE_SCREENSHOTS=1` it writes the pictures of `docs/images/`.
 */
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { projectDirectory } from "../support/program.js";
import { openBrowser, type Tab, type TestBrowser } from "./support/browser.js";
import { type Chandlery, failedOrders, openChandlery } from "./support/chandlery.js";

let browser: TestBrowser;
let shop: Chandlery;
/** Address of a page that reloads itself as pages usually do. */
let origin: string;
beforeAll(async () => {
  browser = await openBrowser();
  shop = await openChandlery("chandlery");
  origin = await shop.openPage();
});
afterAll(async () => {
  await shop?.[Symbol.asyncDispose]();
  await browser?.[Symbol.asyncDispose]();
});

const all = Array.from({ length: failedOrders }, (_, index) => index + 1);
const cause = "invalid input syntax for type numeric";

/** Holds the lock without which no dead letter is retried, until it is released. */
async function holdRetries(): Promise<() => Promise<void>> {
  const session = await shop.world.connect();
  await session.query("BEGIN; SELECT FROM hawser_data.fences WHERE what = 'dead-letters' FOR UPDATE");
  return async () => {
    await session.query("COMMIT");
    await session.end();
  };
}

/** Id of the oldest dead order. */
const newestOrder = () =>
  shop.world.client
    .query<{ id: string }>("SELECT max(id) AS id FROM hawser_data.dead_letters WHERE origin = 'subscription'")
    .then(({ rows }) => rows[0]!.id);

/** Names that are other ones in each run, and what they would be elsewhere. */
const namesOfTests = { "hawser_test_\\w+": "app", "test_login_\\w+": "operator" };

const shows = (tab: Tab, text: string) =>
  eventually(`the page shows "${text}"`, async () => (await tab.text()).includes(text));

it.each([
  { look: "light", scheme: "light", width: 1_200, height: 840 },
  { look: "dark", scheme: "dark", width: 1_200, height: 840 },
  { look: "narrow", scheme: "light", width: 400, height: 800 },
] as const)(
  "the overview, the dead letters, one of them and the topics fit into a $look window",
  async ({ look, scheme, width, height }) => {
    await shop.failOrders();
    await using tab = await browser.tab(origin, { scheme, width, height });
    await eventually("the installation was examined", async () => {
      await tab.open("/?paused=1");
      return (await tab.text()).includes("checks of");
    });
    const shoot = async (name: string) => {
      expect(await tab.value("document.documentElement.scrollWidth")).toBeLessThanOrEqual(width);
      const path = join(projectDirectory, `docs/images/page-${name}-${look}.webp`);
      if (process.env["HAWSER_WRITE_SCREENSHOTS"] === "1") await tab.shoot(path, namesOfTests);
    };
    await shoot("overview");
    const background = await tab.value<string>("getComputedStyle(document.body).backgroundColor");
    expect(background).toBe(scheme === "dark" ? "rgb(15, 20, 25)" : "rgb(245, 247, 249)");
    await tab.click(cause);
    await shoot("list");
    await tab.click(await newestOrder());
    await tab.click("Show the payload");
    await tab.value("scrollTo(0, 0)");
    await shoot("letter");
    await shop.world.client.query("SELECT hawser.pause_topic('letters'), hawser.limit_topic('mail', rate => '100/s')");
    await tab.open("/topics?paused=1");
    expect(await tab.text()).toContain("100/s");
    await shoot("topics");
    expect(tab.problems).toEqual([]);
  },
);

it("an operator finds the cause, and retries 1,000 dead letters, by the keyboard and without JavaScript", async () => {
  await shop.failOrders();
  await using tab = await browser.tab(await shop.openPage({ refreshMs: 1_000 }), { javaScript: false });

  // The cause.
  await tab.open("/?paused=1");
  expect(await tab.text()).toContain("All causes of 1,007 dead letters");
  await tab.pressOn(cause);
  expect(await tab.text()).toContain("1000 dead letters match, the newest first.");
  const list = tab.path;

  // One of them.
  await tab.pressOn(await newestOrder());
  expect(await tab.text()).toContain(`${cause}: "10,50"`);
  expect(await tab.text()).not.toContain('"price"');
  await tab.pressOn("Show the payload");
  expect(await tab.text()).toContain('{"number":1000,"item":"anchor","price":"10,50"}');

  // The repair.
  await shop.repair();
  await tab.open(list);
  const release = await holdRetries();
  await tab.pressOn("Retry all 1000, in order…");
  expect(await tab.text()).toContain("1000 dead letters will be handled again");
  await tab.pressOn("Retry all 1000");
  expect(tab.path).toMatch(/^\/actions\//);
  expect(await tab.text()).toContain("State: running");
  expect(await tab.text()).toContain("0 of 1000 dead letters");
  expect(await tab.value("document.querySelector('progress').max")).toBe(failedOrders);
  await release();
  // Without a hand at it, the page shows how far it is.
  await shows(tab, "State: done");
  expect(await tab.text()).toContain("1000 of 1000 dead letters");
  expect(await tab.value("document.querySelector('progress').value")).toBe(failedOrders);

  // They go.
  await tab.open("/");
  await shows(tab, "All causes of 7 dead letters");
  expect(await tab.text()).not.toContain(cause);
  // They are messages of the queue now.
  await eventually("all are handled", async () => (await shop.taken()).length >= all.length);
  expect(await shop.taken()).toEqual(all);
  expect(tab.problems).toEqual([]);
});
