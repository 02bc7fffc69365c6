/** `hawser top`: the state of an installation in a terminal, refreshed until it is stopped. */
import { topSettingsDefaults, topSettingsRanges } from "../../../generated/ts/settings/page.js";
import { HawserError } from "../../foundation/errors/index.js";
import { delay, silentLogger, systemClock, unlessAborted, whenAborted } from "../../foundation/runtime/index.js";
import { statementLimits } from "../../jobs-and-peers/store/index.js";
import {
  readSnapshot,
  type ShownVerdict,
  type Snapshot,
  sections,
  type TopSort,
  topSorts,
  Verdicts,
} from "../console/index.js";
import { withCommandDatabase } from "../operate/index.js";
import { statementMs } from "../page/index.js";
import { type Arguments, defineCommand, flag, option } from "./command-line.js";
import { doctorJson } from "./doctor.js";
import { awaitStopRequest } from "./long-running.js";
import { databaseOption, databaseUrlOf, oneOf, secretsDirectoriesOf, secretsDirectoryOption } from "./options.js";
import { jsonText, Output, print } from "./output.js";
import { quantityOf, quantityText } from "./quantities.js";
import { Screen } from "./screen.js";
import { painted, topLines } from "./top-view.js";

const { intervalMs: range } = topSettingsRanges;

const args = {
  ...databaseOption,
  interval: option(
    "TIME",
    `${range.about} From ${quantityText("duration", range.min)} to ${quantityText("duration", range.max)}. Default ${quantityText("duration", topSettingsDefaults.intervalMs)}`,
  ),
  once: flag("Print the numbers once, without the limits of the window. Default if standard output is no terminal"),
  filter: option("TEXT", "List only rows with TEXT in one of their names"),
  sort: option(topSorts.join("|"), "Order of the lists; the rates are of topics. Default: what needs somebody first"),
  ...secretsDirectoryOption,
  json: flag("Print the numbers once, as one line of JSON"),
} as const satisfies Arguments;

export const command = defineCommand({
  details:
    "The key q quits, space pauses, n and p turn the pages of lists that are longer than the window, s changes the order. It " +
    "shows all that its login may read, and changes nothing",
  args,
  run: async (given) => {
    const { once = false, json = false } = given;
    const intervalMs = quantityOf("duration", "--interval", given.interval, range) ?? topSettingsDefaults.intervalMs;
    const sort = oneOf("sort", given.sort, topSorts);
    const databaseUrl = databaseUrlOf(given);
    const secretsDirectories = secretsDirectoriesOf(given);
    // A terminal that knows no control sequences calls itself dumb.
    const isLive = process.stdout.isTTY && process.env["TERM"] !== "dumb" && !once && !json;
    const work = async (database: Parameters<typeof sections>[0]): Promise<void> => {
      const verdicts = new Verdicts({ databaseUrl, secretsDirectories }, systemClock, silentLogger);
      const readings = sections(database);
      const read = (sort?: TopSort) => readSnapshot(readings, given.filter, sort);
      const options = { intervalMs, filter: given.filter, sort };
      await (isLive ? watch(read, verdicts, options) : printOnce(() => read(sort), verdicts, json));
    };
    const limits = { ...statementLimits, statementTimeoutMs: statementMs };
    await withCommandDatabase(databaseUrl, work, { anyLogin: true, limits });
  },
  examples: [
    ["hawser top --database-url postgres://operator@127.0.0.1/app", "What that login may read, every two seconds"],
    ["hawser top --interval 10s", "Every ten seconds"],
    ["hawser top --once --sort failed", "Topics by their failed attempts"],
    ["hawser top --json | jq '.peers.value[] | select(.waiting > 1000)'", "Peers that lag behind"],
  ],
});

type ReadNow = (sort?: TopSort) => ReturnType<typeof readSnapshot>;
/** Order behind one, of which undefined is that of each list. */
const nextSort = (sort: TopSort | undefined): TopSort | undefined =>
  topSorts[sort === undefined ? 0 : topSorts.indexOf(sort) + 1];

/** Prints one snapshot, with a verdict. @throws HawserError `store_failed` if Postgres cannot be reached */
async function printOnce(readNow: ReadNow, verdicts: Verdicts, json: boolean): Promise<void> {
  void verdicts.newest;
  const read = await readNow();
  await verdicts.close();
  if (read.state !== "read") throw new HawserError("store_failed", read.why);
  const { newest: verdict } = verdicts;
  if (json) await new Output().write(`${jsonText(topJson(read.value, verdict))}\n`);
  else {
    const lines = topLines({ snapshot: read.value, verdict, now: Date.now() }, { columns: process.stdout.columns });
    print(process.stdout, lines.map(painted).join("\n"));
  }
}

/** Snapshot for programs, with 64-bit integers as strings, which JSON numbers cannot hold. */
function topJson(snapshot: Snapshot, { report, problem }: ShownVerdict): object {
  const verdict =
    report === undefined ? { state: "failed", why: problem } : { state: "read", value: doctorJson(report) };
  const { at, login, database, ...others } = snapshot;
  const text = JSON.stringify({ at, login, database, verdict, ...others }, (_, value: unknown) =>
    typeof value === "bigint" ? String(value) : value,
  );
  return JSON.parse(text) as object;
}

interface WatchOptions {
  readonly intervalMs: number;
  readonly filter: string | undefined;
  readonly sort: TopSort | undefined;
}

/** Shows snapshots on the whole screen until a key or a signal ends it. */
async function watch(
  readNow: ReadNow,
  verdicts: Verdicts,
  { intervalMs, filter, sort: firstSort }: WatchOptions,
): Promise<void> {
  const request = awaitStopRequest();
  const quit = new AbortController();
  const ended = AbortSignal.any([request.signal, quit.signal]);
  let snapshot: Snapshot | undefined;
  let verdict = verdicts.newest;
  let isExamining = false;
  let problem: string | undefined;
  let paused: AbortController | undefined;
  let page = 0;
  let sort = firstSort;
  let wake = new AbortController();

  const onKey = (key: string): void => {
    if (key === "q" || key === "Q" || key === "\u0003") quit.abort();
    if (key === "n" || key === "p") {
      page = Math.max(0, page + (key === "n" ? 1 : -1));
      draw();
    }
    if (key === "s") {
      sort = nextSort(sort);
      page = 0;
      wake.abort();
      draw();
    }
    if (key !== " ") return;
    const goesOn = paused;
    paused = goesOn === undefined ? new AbortController() : undefined;
    goesOn?.abort();
    draw();
  };
  const screen = new Screen({ onKey, onResize: () => draw() });
  const pace = `every ${quantityText("duration", intervalMs)}`;
  const hintOf = (): string =>
    !screen.hasKeys
      ? pace
      : paused === undefined
        ? `${pace}; space pauses, n and p turn pages, s sorts, q quits`
        : "paused; space goes on, n and p turn pages, q quits";
  function draw(): void {
    const view = { snapshot, verdict, now: Date.now(), problem, hint: hintOf(), page, filter, sort };
    screen.draw(topLines(view, screen.size).map(painted));
  }
  /** Reads the verdict, and shows a new one when it is there, even if the interval is long. */
  const examine = (): void => {
    verdict = verdicts.newest;
    if (isExamining || !verdict.isExamining) return;
    isExamining = true;
    void verdicts.settled().then(() => {
      isExamining = false;
      verdict = verdicts.newest;
      draw();
    });
  };

  try {
    draw();
    while (!ended.aborted) {
      const startedAt = performance.now();
      examine();
      const read = await unlessAborted(readNow(sort), ended);
      if (read.state === "read") snapshot = read.value;
      problem = read.state === "read" ? undefined : read.why;
      draw();
      // A slow database is not kept busier than half of the time.
      await delay(Math.max(intervalMs, performance.now() - startedAt), AbortSignal.any([ended, wake.signal]));
      wake = new AbortController();
      if (paused !== undefined) await whenAborted(AbortSignal.any([ended, paused.signal]));
    }
  } catch (error) {
    if (!ended.aborted) throw error;
  } finally {
    screen.close();
    request.close();
  }
  // The statements and checks that still run only read, so the process ends without them.
  process.exit();
}
