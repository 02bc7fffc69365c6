/** The page in a real Chromium: for screen readers and keyboards, for logins with few rights, and with hostile contents. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { openBrowser, type Tab, type TestBrowser } from "./support/browser.js";
import { type Chandlery, openChandlery } from "./support/chandlery.js";
import { viewerOf } from "./support/page-world.js";

let browser: TestBrowser;
let shop: Chandlery;
/** Address of the page, which reloads itself after an hour: no test is to meet that. */
let origin: string;
beforeAll(async () => {
  browser = await openBrowser();
  shop = await openChandlery("ropewalk");
  origin = await shop.openPage({ refreshMs: 3_600_000, traceUrl: "https://traces.example/{traceId}" });
});
afterAll(async () => {
  await shop?.[Symbol.asyncDispose]();
  await browser?.[Symbol.asyncDispose]();
});

/** Id of the newest dead letter. */
const newest = async () =>
  (await shop.world.rows<{ id: string }>("SELECT max(id) AS id FROM hawser_data.dead_letters"))[0]!.id;

/** Writes a dead letter whose payload is this text, and whose other texts are its beginning. */
async function writeLetter(text: string): Promise<string> {
  await shop.world.rows(
    `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, headers, error_code, error_message, attempts, stack)
     SELECT 'queue', t, t, convert_to($1, 'UTF8'), jsonb_build_array(jsonb_build_array(t, t)), t, t, 1, t FROM left($1, 200) AS t`,
    [text],
  );
  return newest();
}

describe.each([
  { scheme: "dark", width: 1_000 },
  { scheme: "light", width: 400 },
] as const)("the page in $scheme colours, $width pixels wide", ({ scheme, width }) => {
  let tab: Tab;
  beforeAll(async () => {
    tab = await browser.tab(origin, { scheme, width });
  });
  afterAll(() => tab[Symbol.asyncDispose]());

  /** Checks the page that the tab shows. */
  async function check(): Promise<void> {
    expect(await tab.axe()).toEqual([]);
    const isWide = "[document.documentElement.scrollWidth, innerWidth]";
    expect(await tab.value(isWide), tab.path).toEqual([width, width]);
  }

  it.each([
    "/",
    "/causes",
    "/causes?before=1000000",
    "/dead",
    "/dead?topic=mail",
    "/dead?topic=nothing",
    "/backlog",
    "/topics",
    "/topics?sort=oldest",
    "/topic?name=mail",
    "/topic/limit?name=mail",
    "/later",
    "/peer?name=mailer-1",
    "/peers",
    "/outbox",
    "/streams",
    "/schedules",
    "/jobs",
    "/jobs?topic=mail&state=dead",
    "/audit",
    "/message",
    "/message?id=unknown",
    "/message?id=ropewalk/1/1",
    "/actions",
  ])("has nothing for axe at %s, and nothing wider than the window", async (path) => {
    await tab.open(path);
    await check();
    expect(tab.problems).toEqual([]);
  });

  it("has nothing for axe at a verdict", async () => {
    await eventually("there is one", async () => {
      await tab.open("/");
      return (await tab.text()).includes("checks of");
    });
    await check();
  });

  it("has nothing for axe at one dead letter, its payload and its message", async () => {
    const [{ id, place } = { id: "", place: "" }] = await shop.world.rows<{ id: string; place: string }>(
      "SELECT id, message_id AS place FROM hawser_data.dead_letters WHERE topic = 'mail' ORDER BY id LIMIT 1",
    );
    await tab.open(`/dead/${id}`);
    await check();
    await tab.click("Show the payload");
    await check();
    await tab.open(`/message?${new URLSearchParams({ id: place })}`);
    expect(await tab.text()).toContain(`Dead letter ${id}`);
    await check();
    expect(tab.problems).toEqual([]);
  });

  it("has nothing for axe at the form that corrects a payload", async () => {
    const [{ id } = { id: "" }] = await shop.world.rows<{ id: string }>(
      `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts)
       VALUES ('queue', '', 'mail', '{"a": 1}', 'handler_failed', 'm', 1) RETURNING id`,
    );
    await tab.open(`/dead/${id}/edit`);
    expect(await tab.text()).toContain("Edit dead letter");
    await check();
    await shop.world.rows("DELETE FROM hawser_data.dead_letters WHERE id = $1", [id]);
    expect(tab.problems).toEqual([]);
  });

  it("has nothing for axe at long names, long words and bytes", async () => {
    await shop.world.rows(
      `SELECT hawser.enqueue(repeat('t', 255), 'x', message_id => 'wide', deliver_at => now() + interval '1 day')`,
    );
    const id = await writeLetter("\u202E<b>".repeat(2_000));
    for (const path of ["/message?id=wide", `/dead/${id}?payload=1`, "/dead", "/"]) {
      await tab.open(path);
      await check();
    }
    await shop.world.rows(
      "UPDATE hawser_data.dead_letters SET payload = '\\x00ff'::bytea || sha256('') WHERE id = $1",
      [id],
    );
    await tab.open(`/dead/${id}?payload=1`);
    await check();
    await shop.world.rows("DELETE FROM hawser_data.dead_letters WHERE id = $1", [id]);
    expect(tab.problems).toEqual([]);
  });

  it("has nothing for axe at a discard: its confirmation, its time to undo it, its end, and their list", async () => {
    await tab.open("/dead?topic=mail");
    await tab.click("Retry all 7");
    await check();
    await tab.open("/dead?topic=mail");
    await tab.click("Discard all 7");
    await check();
    await tab.click("Discard all 7");
    expect(await tab.text()).toContain("State: waiting");
    await check();
    await tab.click("Undo");
    // On a slow machine it has begun before, and was refused, because the operator is no member of the mailer's role.
    await eventually("it has ended", async () => {
      await tab.open(tab.path);
      return /State: (stopped|done)/.test(await tab.text());
    });
    await check();
    await tab.open("/actions");
    await check();
    expect(tab.problems).toEqual([]);
  });

  it("has nothing for axe at a retry that is refused", async () => {
    const id = await writeLetter("nobody's");
    await tab.open(`/dead/${id}`);
    await tab.click("Retry");
    await eventually("it is done", async () => {
      await tab.open(tab.path);
      return (await tab.text()).includes("State: done");
    });
    expect(await tab.text()).toContain("Refused");
    await check();
    await shop.world.rows("DELETE FROM hawser_data.dead_letters WHERE id = $1", [id]);
    expect(tab.problems).toEqual([]);
  });

  it("has nothing for axe for a login that reads status views only", async () => {
    await using viewer = await viewerOf(shop.world.database.url);
    const viewed = await shop.openPage({ databaseUrl: viewer.url });
    await using own = await browser.tab(viewed, { scheme, width });
    for (const path of ["/", "/dead", `/dead/${await newest()}`, "/streams", "/actions"]) {
      await own.open(path);
      expect(await own.axe()).toEqual([]);
    }
    expect(own.problems).toEqual([]);
  });

  it.each(["/nowhere", "/dead/x", "/actions/x", "/dead/99999999"])(
    "has nothing for axe at the error of %s",
    async (path) => {
      await using other = await browser.tab(origin, { scheme, width });
      await other.open(path);
      expect(await other.axe()).toEqual([]);
      // The status, which the browser reports, and nothing else.
      expect(other.problems).toEqual([expect.stringContaining("Failed to load resource")]);
    },
  );
});

it("the Tab key reaches all links, fields and buttons, and shows where it is", async () => {
  await using tab = await browser.tab(origin, { javaScript: false });
  await tab.open("/dead");
  const passed = await tab.tabTo("Discard all 7");
  const expected = [
    "Skip to the content",
    "Overview",
    "Origin",
    "Topic or subject",
    "Filter",
    "Retry all 7, in order…",
  ];
  expect(passed.filter((name) => expected.includes(name))).toEqual(expected);
  await tab.tabTo("Dead letters, table");

  // A filter, without a mouse.
  await tab.open("/dead");
  await tab.tabTo("Error code");
  await tab.page.keyboard.type("handler_failed");
  await tab.submit();
  expect(tab.path).toContain("code=handler_failed");
  expect(await tab.text()).toContain("7 dead letters match");
  expect(tab.problems).toEqual([]);
});

it("a list that reloads keeps its place, its focus and what is typed, and says when the page does not answer", async () => {
  const { rows } = shop.world;
  await rows("SELECT hawser.pause_topic('list-' || n) FROM generate_series(1, 60) AS n");
  const own = await shop.openPage();
  await using tab = await browser.tab(own, { height: 600 });
  // The test says when it is time.
  await tab.page.evaluateOnNewDocument(
    "window.setTimeout = (run) => { window.next = run; }; window.clearTimeout = () => {};",
  );
  await tab.open("/topics?filter=list-");
  const reload = () => tab.value("next()");
  const isShown = (text: string) => tab.value<boolean>(`document.querySelector('main').innerText.includes('${text}')`);
  await tab.value("[...document.querySelectorAll('a')].find((one) => one.textContent === 'list-50').focus()");
  const place = "[document.activeElement.textContent, scrollY > 300]";
  expect(await tab.value(place)).toEqual(["list-50", true]);
  await rows("SELECT hawser.pause_topic('list-new')");
  await reload();
  expect([await isShown("list-new"), await tab.value(place)]).toEqual([true, ["list-50", true]]);
  const field = "document.querySelector('main #f-filter')";
  await tab.value(`${field}.focus()`);
  await tab.page.keyboard.type("7");
  await rows("SELECT hawser.pause_topic('list-last')");
  for (const leave of ["", `${field}.blur()`]) {
    await tab.value(leave);
    await reload();
    expect([await isShown("list-last"), await tab.value(`${field}.value`)]).toEqual([false, "7list-"]);
  }
  await tab.value(`${field}.value = "list-"`);
  await reload();
  expect(await isShown("list-last")).toBe(true);
  expect(tab.problems).toEqual([]);
  await shop.closePage(own);
  await reload();
  expect([await isShown("The page has not answered for"), await isShown("list-last")]).toEqual([true, true]);
  await rows("SELECT hawser.resume_topic(s.topic) FROM hawser_data.topic_settings AS s WHERE s.topic LIKE 'list-%'");
});

it("the first link leads past the navigation", async () => {
  await using tab = await browser.tab(origin);
  await tab.open("/dead");
  await tab.tabTo("Skip to the content");
  await tab.page.keyboard.press("Enter");
  expect(await tab.tabTo("Origin")).toEqual([]);
  expect(tab.problems).toEqual([]);
});

/** Contents that would do something on a page that does not escape them, or has no policy. */
const hostile = [
  "<script>alert(1)</script>",
  "<img src=https://evil.example/x onerror=alert(1)>",
  '"><svg onload=alert(1)>',
  "'><body onload=alert(1)>",
  "</pre></section><form action=https://evil.example method=post><button autofocus onfocus=alert(1)>x</button></form>",
  "<iframe src=https://evil.example></iframe>",
  "<meta http-equiv=refresh content='0;url=https://evil.example'>",
  "<base href=https://evil.example>",
  "<link rel=stylesheet href=https://evil.example/x.css><style>body{display:none}</style>",
  "<a href=javascript:alert(1) autofocus onfocus=alert(1)>x</a>",
  "<object data=https://evil.example></object><embed src=https://evil.example>",
  "<textarea><title><!--<plaintext>",
  "javascript:alert(1)",
  "\u202Egnp.exe\u2066\u2067",
  "\u001B[31mred\u0007\u007F",
];

it.each([true, false])("hostile contents do nothing (JavaScript: %s)", async (javaScript) => {
  await using tab = await browser.tab(origin, { javaScript });
  for (const text of hostile) {
    const id = await writeLetter(text);
    const paths = [
      `/dead/${id}?payload=1`,
      `/dead?${new URLSearchParams({ topic: text, cause: text })}`,
      `/message?${new URLSearchParams({ id: text })}`,
      "/",
    ];
    for (const path of paths) {
      await tab.open(path);
      const isHarmless = `document.querySelectorAll("script:not([src='/refresh.js']), style, iframe, object, embed, base, img, svg:not(.sparkline, .chart svg), textarea, main meta, main link, [onload], [onerror], [onfocus], [href^=javascript]").length === 0`;
      expect(await tab.value(isHarmless), path).toBe(true);
      expect(await tab.value("document.querySelectorAll('h1').length"), path).toBe(1);
    }
    // What reorders or hides others is shown by its code.
    await tab.open(paths[0]!);
    expect(await tab.value("document.querySelector('pre').innerText.match(/[\\p{Cc}\\p{Cf}]/gu)")).toBeNull();
    await shop.world.rows("DELETE FROM hawser_data.dead_letters WHERE id = $1", [id]);
  }
  expect(tab.problems).toEqual([]);
});

it("the policy stops what would be there nevertheless, and these tests would see it", async () => {
  await using tab = await browser.tab(origin);
  await tab.open("/");
  await tab.value("document.querySelector('h1').style.color = '#ddd'");
  expect(await tab.axe()).toEqual([expect.stringContaining("color-contrast")]);
  await tab.value(`document.body.append(Object.assign(new Image(), { src: "https://evil.example/x" }))`);
  await tab.value(`document.body.append(Object.assign(document.createElement("script"), { text: "alert(1)" }))`);
  await eventually("the browser has refused both", () => tab.problems.length >= 2);
  expect(tab.problems.filter((problem) => problem.includes("Content Security Policy"))).toHaveLength(2);
  expect(tab.problems.filter((problem) => problem.startsWith("dialog"))).toEqual([]);
});
