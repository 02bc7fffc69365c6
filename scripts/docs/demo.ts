/** Demo of the operator's page: a recording of a busy system, beside the pages of the documentation. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { page } from "../../src/operating/page/index.js";
import { openBusySystem } from "./busy-system.js";
import { recordPages } from "./recording.js";

/** Longest time for which the verdict of the page is awaited, in ms. */
const verdictMs = 60_000;

/** Writes the demo into a folder. */
export async function writeDemo(folder: string): Promise<void> {
  await using system = await openBusySystem();
  await using handler = page({ databaseUrl: system.databaseUrl });
  const ask = (path: string): Promise<Response> => handler(new Request(`http://127.0.0.1${path}`));
  const until = performance.now() + verdictMs;
  while ((await (await ask("/")).text()).includes("is being examined") && performance.now() < until) await delay(500);
  const files = await recordPages(ask);
  mkdirSync(folder, { recursive: true });
  const database = new URL(system.databaseUrl).pathname.slice(1);
  for (const [name, text] of files) writeFileSync(join(folder, name), text.replaceAll(database, "shop"));
}
