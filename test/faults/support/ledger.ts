/**
 * The ledger of a workload, which says what was sent and what became of it, and the audit, which compares the two.
 *
 * Whoever enqueues writes a row of `sent` in the same transaction, and whoever handles writes a row of `done` in its own. What no
 * transaction can write, such as that a handler was started while Postgres was away, is in journals and logs; of these the same
 * rows are made in the end.
 */
import { onServer, rowsOf } from "../../support/on-server.js";

/** A message as its sender knows it. Those of a lane are listed in their order. */
export interface Sent {
  readonly id: string;
  /** Each of them has it: listeners, groups, streams, subscriptions with the role that runs them. */
  readonly consumers: readonly string[];
  /** Messages of a lane have their first effects in order. Default: a message has no order with others. */
  readonly lane?: string | null | undefined;
  /** `withdrawn`: refused, cancelled, or discarded, so that it has no effect. Default: `confirmed`. */
  readonly outcome?: "confirmed" | "unknown" | "withdrawn" | undefined;
  /** Time before which it has no effect, in seconds since 1970. */
  readonly due?: number | null | undefined;
}

/** An effect, or the start of a handler. They are listed in the order of time. */
export interface Done {
  readonly consumer: string;
  readonly id: string;
  /** In seconds since 1970. */
  readonly at?: number | undefined;
}

/** What the audit has found, each as `consumer: id`. */
export interface Findings {
  /** Confirmed, and without an effect. */
  readonly lost: readonly string[];
  /** More than one effect, or sent more than once. Right where a message is handled at least once. */
  readonly twice: readonly string[];
  /** Effects of what was not sent, was withdrawn or is for others, and effects before their time. */
  readonly stray: readonly string[];
  /** First effects behind that of a later message of the lane. */
  readonly late: readonly string[];
}

export function audit(sent: readonly Sent[], done: readonly Done[]): Findings {
  const places = new Map<string, number>();
  const [lost, twice, stray, late] = [[], [], [], []] as [string[], string[], string[], string[]];
  for (const [place, { id }] of sent.entries()) {
    if (places.has(id)) twice.push(`sent: ${id}`);
    else places.set(id, place);
  }
  const seen = new Set<string>();
  /** Place of the last message that each consumer has had of each lane. */
  const last = new Map<string, number>();
  for (const { consumer, id, at } of done) {
    const found = `${consumer}: ${id}`;
    const place = places.get(id);
    const message = place === undefined ? undefined : sent[place];
    if (place === undefined || message?.consumers.includes(consumer) !== true) {
      stray.push(found);
      continue;
    }
    const { lane, outcome, due } = message;
    if (outcome === "withdrawn") stray.push(`${found}, which was withdrawn`);
    if (typeof due === "number" && at !== undefined && at < due) stray.push(`${found}, which was not due`);
    if (seen.has(found)) {
      twice.push(found);
      continue;
    }
    seen.add(found);
    if (typeof lane !== "string") continue;
    const ofConsumer = `${consumer} ${lane}`;
    const before = last.get(ofConsumer) ?? -1;
    if (place < before) late.push(`${found} behind ${sent[before]!.id}`);
    else last.set(ofConsumer, place);
  }
  for (const { id, consumers, outcome = "confirmed" } of sent) {
    if (outcome !== "confirmed") continue;
    for (const consumer of consumers) if (!seen.has(`${consumer}: ${id}`)) lost.push(`${consumer}: ${id}`);
  }
  return { lost, twice, stray, late };
}

/** Findings that are not empty, each with its name, how many there are, and the first few: so a failure shows what is wrong. */
export function problems<Kinds extends { readonly [Kind in keyof Kinds]: readonly string[] }>(
  findings: Kinds,
): string[] {
  return (Object.entries(findings) as [string, readonly string[]][])
    .filter(([, found]) => found.length > 0)
    .map(([name, found]) => `${found.length} ${name}: ${found.slice(0, 5).join("; ")}`);
}

/** The same where messages are handled at least once, so that some have more than one effect. */
export function problemsBesideRepeats({ twice: _, ...findings }: Findings): string[] {
  return problems(findings);
}

/** The id of the message that a finding is about, where ids are numbers. */
export function numberOf(finding: string): number {
  return Number.parseInt(finding.slice(finding.indexOf(": ") + 2), 10);
}

// No constraint: what comes twice is to be seen.
const ledgerSql = [
  `CREATE TABLE sent (
     nth bigserial PRIMARY KEY, id text NOT NULL, consumers text[] NOT NULL, lane text, outcome text NOT NULL DEFAULT 'confirmed',
     due timestamptz, kind text, at timestamptz NOT NULL DEFAULT clock_timestamp()
   )`,
  `CREATE TABLE done (
     nth bigserial PRIMARY KEY, consumer text NOT NULL, id text NOT NULL, note text, at timestamptz NOT NULL DEFAULT clock_timestamp(),
     epoch bigint, xid xid8 NOT NULL DEFAULT pg_current_xact_id(), snapshot pg_snapshot NOT NULL DEFAULT pg_current_snapshot()
   )`,
  "CREATE INDEX ON sent (id)",
  "CREATE INDEX ON done (id)",
  "CREATE INDEX ON done (epoch)",
  "GRANT SELECT, INSERT ON sent, done TO PUBLIC",
  "GRANT USAGE ON SEQUENCE sent_nth_seq, done_nth_seq TO PUBLIC",
];

/** Makes the tables of a ledger. A row of `done` also has the transaction of the effect, and what that one saw of others. */
export async function createLedger(url: string): Promise<void> {
  await onServer(url, ...ledgerSql);
}

/** All that the ledger says was sent. */
export async function readSent(url: string): Promise<Sent[]> {
  const sql = "SELECT id, consumers, lane, outcome, extract(epoch FROM due)::float8 AS due FROM sent ORDER BY nth";
  return (await rowsOf(url, sql)) as unknown as Sent[];
}

/** All effects in the ledger. @param where a condition for them, of which `d` is the row */
export async function readDone(url: string, where = "true"): Promise<Done[]> {
  const sql = `SELECT consumer, id, extract(epoch FROM at)::float8 AS at FROM done AS d WHERE ${where} ORDER BY nth`;
  return (await rowsOf(url, sql)) as unknown as Done[];
}

/** Number of confirmed messages of the ledger without their effects. */
export async function unfinished(url: string): Promise<number> {
  const [row] = await rowsOf(
    url,
    `SELECT count(*)::float8 AS n FROM sent AS s CROSS JOIN unnest(s.consumers) AS c (consumer)
      WHERE s.outcome = 'confirmed' AND NOT EXISTS (SELECT FROM done AS d WHERE d.id = s.id AND d.consumer = c.consumer)`,
  );
  return row!["n"] as number;
}

/** Effects so far, and some more: numbers that were drawn for them. 0 while Postgres is away. */
export async function effectsSoFar(url: string): Promise<number> {
  const [row] = await rowsOf(url, "SELECT last_value::float8 AS n FROM done_nth_seq").catch(() => []);
  return (row?.["n"] as number | undefined) ?? 0;
}
