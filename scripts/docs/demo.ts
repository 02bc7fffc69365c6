/** Demo of the operator's page: a recording of a busy system, beside the pages of the documentation. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { page } from "../../src/operating/page/index.js";
import { openBusySystem } from "./busy-system.js";
import { recordPages } from "./recording.js";

/** What the overview shows when enough has happened: states of topics, and the cause of a dead letter. */
const shown = ["nobody serves it", "limited", "paused", "the endpoint answered"];

/** Longest time for which the verdict of the page and what else it shows is awaited, in ms. */
const shownMs = 120_000;

/** Writes the demo into a folder. */
export async function writeDemo(folder: string): Promise<void> {
  await using system = await openBusySystem();
  await using handler = page({ databaseUrl: system.databaseUrl });
  const ask = (path: string): Promise<Response> => handler(new Request(`http://127.0.0.1${path}`));
  const until = performance.now() + shownMs;
  const isShown = (overview: string): boolean =>
    !overview.includes("is being examined") && shown.every((text) => overview.includes(text));
  while (!isShown(await (await ask("/")).text()) && performance.now() < until) await delay(500);
  const files = await recordPages(ask);
  mkdirSync(folder, { recursive: true });
  const database = new URL(system.databaseUrl).pathname.slice(1);
  for (const [name, text] of files) writeFileSync(join(folder, name), text.replaceAll(database, "shop"));
}
