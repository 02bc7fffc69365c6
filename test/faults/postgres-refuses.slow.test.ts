/**
 * A Postgres that takes no writes: it is read-only, a trigger raises, or its disk is full, where first rows do not fit any more, which
 * it survives, then its log, which it does not. For the listener that is away everything must be stored: such sends wait, or end as
 * unknown after their time, and what was sent arrives all the same.
 */
import { expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { patienceMs } from "./support/kills.js";
import { problems } from "./support/ledger.js";
import type { Member } from "./support/member.js";
import { Mesh, recoveryLimitMs } from "./support/mesh.js";
import { auditMesh } from "./support/mesh-audit.js";
import { microseconds } from "./support/mesh-protocol.js";
import { type OwnPostgres, ownPostgres } from "./support/own-postgres.js";
import { type SmallDisk, smallDisk } from "./support/small-disk.js";

interface Refusal {
  readonly why: string;
  begin(postgres: OwnPostgres): Promise<void> | void;
  end(postgres: OwnPostgres): Promise<void> | void;
}

/** By statements that begin and end it. */
const byStatements = (why: string, begin: readonly string[], end: readonly string[]): Refusal => ({
  why,
  begin: ({ url }) => onServer(url, ...begin),
  end: ({ url }) => onServer(url, ...end),
});

const refused: readonly Refusal[] = [
  byStatements(
    "it was made read-only",
    ["ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"],
    ["ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()"],
  ),
  byStatements(
    "a trigger raises",
    [
      `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$`,
      "CREATE TRIGGER refuse BEFORE INSERT ON hawser_peer_data.stored_messages FOR EACH ROW EXECUTE FUNCTION refuse()",
    ],
    ["DROP TRIGGER refuse ON hawser_peer_data.stored_messages"],
  ),
];

/** Rows do not fit on the disk, or the log. */
const fullOf = (disk: SmallDisk): readonly Refusal[] =>
  (["rows", "log"] as const).map(
    (shortage): Refusal => ({
      why: `${disk.what} has no room for ${shortage}`,
      async begin(postgres) {
        disk.fill(postgres, shortage);
        // A new file of the log is needed.
        if (shortage === "log") await onServer(postgres.url, "SELECT pg_switch_wal()").catch(() => undefined);
      },
      async end(postgres) {
        disk.free(postgres);
        if (!postgres.isRunning) await postgres.start();
      },
    }),
  );

it.each([
  // Sends end before the refusal does.
  { what: "as it is read-only, or by a trigger", isFull: false, sendTimeoutMs: 2_000 },
  { what: "as its disk is full", isFull: true, sendTimeoutMs: 60_000 },
])(
  "a Postgres that refuses writes, $what, confirms nothing that is lost",
  {
    timeout: patienceMs,
  },
  async ({ isFull, sendTimeoutMs }) => {
    const disk = smallDisk();
    const refusals = isFull ? fullOf(disk) : refused;
    await using postgres = await ownPostgres(isFull ? { prepare: (directory) => disk.prepare(directory) } : {});
    await using mesh = await Mesh.start({
      ...{ url: postgres.url, peer: { sendTimeoutMs }, perSecond: 50 },
      ...(isFull ? { payloadBytes: 1_900 } : {}),
    });
    const [x, y] = [mesh.member("x"), mesh.member("y")];
    /** Resolves when each sender has stored something that it sent after that time. */
    const store = (since: number) =>
      eventually(
        "sends to the absent listener are stored",
        () => mesh.senders.every((sender) => mesh.confirmed(sender, x).some(({ sentAt }) => sentAt > since)),
        recoveryLimitMs,
      );
    await mesh.current(x).crash();
    await store(microseconds());
    if (isFull) await fillTable(mesh, postgres.url);
    for (const { why, begin, end } of refusals) {
      const begun = microseconds();
      await begin(postgres);
      // A sender with a suspended lease stores nothing, but its read of stored messages fails.
      const errors = (sender: Member) => [
        ...mesh.statuses(sender, "sender_store_error", begun),
        ...mesh.statuses(sender, "listener_store_error", begun),
      ];
      await eventually("every sender fails at the store", () => mesh.senders.every((each) => errors(each).length > 0));
      if (isFull) {
        const failed = microseconds();
        await eventually("it lasts", () => microseconds() > failed + 3_000_000);
      } else await expectRejected(mesh, x, begun, sendTimeoutMs);
      const ran = postgres.isRunning;
      await end(postgres);
      const ended = microseconds();
      await store(ended);
      const others = mesh.channels.filter(({ listener }) => listener === y);
      const back = await mesh.recovered(ended, others);
      console.log(`refused because ${why}: the server ${ran ? "stayed" : "ended"}, back after ${back.toFixed(0)} ms`);
    }
    await mesh.launch(x);
    await mesh.recovered(microseconds());
    await mesh.settle();
    const found = auditMesh(mesh);
    console.log(found.summary);
    expect(problems(found.findings)).toEqual([]);
    if (isFull) expect(found.unknown).toBe(0);
  },
);

/** 16 MB of rows wait: the table cannot stay as it is. */
async function fillTable(mesh: Mesh, url: string): Promise<void> {
  await Promise.all(mesh.senders.map((sender) => mesh.current(sender).call("hurry", 4_500)));
  const sql = "SELECT pg_total_relation_size('hawser_peer_data.stored_messages')::float8 AS bytes";
  await eventually("they are stored", async () => {
    const [row] = await rowsOf(url, sql);
    return (row?.["bytes"] as number) > 16.5 * 1024 * 1024;
  });
}

/** Sends to the listener that is away end as unknown, not before their time; nothing is confirmed. */
async function expectRejected(mesh: Mesh, away: Member, begun: number, sendTimeoutMs: number): Promise<void> {
  const rejected = () =>
    mesh.senders.map((sender) => {
      const { rejected: all } = mesh.current(sender).journal.refresh();
      return all.filter(({ topic, sentAt }) => topic === away.name && sentAt > begun);
    });
  await eventually("sends of every sender are rejected", () => rejected().every(({ length }) => length >= 50));
  for (const { failure, at, sentAt } of rejected().flat()) {
    expect(failure).toMatchObject({ code: "store_failed", outcome: "unknown" });
    expect((at - sentAt) / 1_000).toBeGreaterThan(sendTimeoutMs - 50);
  }
  for (const sender of mesh.senders) {
    // Messages in flight when the refusal began may have been committed just before.
    const [first] = mesh
      .statuses(sender, "sender_store_error", begun)
      .filter(({ status }) => status.peer === away.name);
    expect(first).toBeDefined();
    expect(mesh.confirmed(sender, away).filter(({ sentAt }) => sentAt > first!.at)).toEqual([]);
  }
}
