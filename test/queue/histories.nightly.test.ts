/** Departures from the rules of the queue, each of which its random histories must catch: they show that they can fail. */
import pg from "pg";
import { expect, it } from "vitest";
import { testDatabase } from "../support/database.js";
import { type HistoryDriver, QueueHistories } from "./support/histories.js";

const seeds = 300;

interface Mutant extends HistoryDriver {
  readonly name: string;
  readonly fn?: string;
  /** In the text of the function, and what stands there instead. */
  readonly changes?: readonly (readonly [from: string, to: string])[];
}

const isFree =
  "(q.worker IS NULL OR NOT EXISTS (SELECT FROM hawser_data.workers AS w WHERE w.id = q.worker AND w.gone_at IS NULL))";

const mutants: readonly Mutant[] = [
  {
    name: "commits although the row is gone",
    fn: "done",
    changes: [["ended := FOUND", "ended := true"]],
  },
  { name: "takes what another worker has", fn: "find_ready", changes: [[isFree, "true"]] },
  {
    name: "lets two workers have one key",
    fn: "first_of_keys",
    changes: [["f.worker IS DISTINCT FROM p_worker AND", "f.worker IS NULL AND"]],
  },
  {
    name: "lets a key go on while its first message waits to be tried again",
    fn: "first_of_keys",
    changes: [["AND s.rank < l.rank", "AND s.rank < l.rank AND false"]],
  },
  {
    name: "lets a worker keep what is behind a message that is put off",
    fn: "retry",
    changes: [["IF v_key IS NOT NULL THEN", "IF false THEN"]],
  },
  {
    name: "gives back a message, and not what is behind it with its key",
    fn: "give_back",
    changes: [["AND b.rank > f.rank", "AND false"]],
  },
  {
    name: "blames what was taken, and not begun",
    fn: "count_left",
    changes: [["AND NOT h.is_suspect AND NOT h.has_begun", "AND NOT h.has_begun"]],
  },
  {
    name: "does not count what was begun",
    fn: "count_left",
    changes: [["h.has_begun OR h.rank IN", "h.rank IN"]],
  },
  { name: "never looks behind", neverLooksBehind: true },
  {
    name: "makes no copy for workers outside of groups but the first",
    fn: "find_copies",
    changes: [
      [
        "AND s.topic = ANY (w.topics)",
        "AND s.topic = ANY (w.topics) AND (w.group_name IS NOT NULL OR w.id = (SELECT min(o.id) FROM hawser_data.workers AS o WHERE o.gone_at IS NULL))",
      ],
    ],
  },
  {
    name: "makes no copy for durable listeners",
    fn: "find_copies",
    changes: [["OR l.durable OR", "OR"]],
  },
  {
    name: "makes no copy for groups of the directory",
    fn: "find_copies",
    changes: [
      ["FROM listed AS l WHERE l.group_name IS NOT NULL OR", "FROM listed AS l WHERE l.group_name IS NULL AND"],
    ],
  },
  {
    name: "takes a message for all without making copies",
    fn: "make_copies",
    changes: [
      [
        "SELECT q.ctid FROM hawser_data.queue AS q WHERE q.ctid = ANY (p_tids) AND (q.to_all AND q.recipient IN ('', '!'))",
        "SELECT NULL::tid WHERE false",
      ],
    ],
  },
  {
    name: "forgets to cancel what is just being handled",
    fn: "end_cancelled",
    changes: [["(NOT a.is_there OR", "(true OR"]],
  },
  {
    name: "lets a later worker have what a killed one had and was cancelled",
    fn: "take",
    changes: [["EXISTS (SELECT FROM hawser_data.cancellations),", "false,"]],
  },
  {
    name: "says that it has cancelled what a worker has just taken",
    fn: "cancel_queued",
    changes: [["'cancelling'", "'cancelled'"]],
  },
  {
    name: "ends a worker that goes on",
    fn: "extend",
    changes: [["AND w.beat_at < clock_timestamp()", "AND w.id <> p_worker OR w.beat_at < clock_timestamp()"]],
  },
];

it.each(mutants)("catches one that $name", { timeout: 1_200_000 }, async ({ fn, changes = [], ...driver }) => {
  await using database = await testDatabase({ nats: false });
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  if (fn !== undefined) {
    const { rows } = await client.query<{ text: string }>(
      "SELECT pg_get_functiondef(oid) AS text FROM pg_proc WHERE pronamespace = 'hawser'::regnamespace AND proname = $1",
      [fn],
    );
    let { text } = rows[0]!;
    for (const [from, to] of changes) {
      expect(text).toContain(from);
      text = text.replaceAll(from, () => to);
    }
    await client.query(text);
  }
  await client.end();
  await using histories = new QueueHistories(database.url, driver);
  await histories.open();
  let caught: string | undefined;
  for (let seed = 1; caught === undefined && seed <= seeds; seed++) {
    caught = await histories.run(seed).then(
      () => undefined,
      (error: Error) => `seed ${seed}: ${error.message}`,
    );
  }
  console.log(`${driver.name}: ${caught}`);
  expect(caught).toMatch(
    /committed|rolled back|twice|two workers|goes on|left in the queue|dead letters|was begun or not/,
  );
});
