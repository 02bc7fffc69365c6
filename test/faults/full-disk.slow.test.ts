/**
 * A Postgres whose disk is full: first rows do not fit any more, which it survives, then its log, which it does not.
 */
import { expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { patienceMs } from "./support/kills.js";
import { problems } from "./support/ledger.js";
import { auditMesh } from "./support/mesh-audit.js";
import { Mesh, recoveryLimitMs } from "./support/mesh.js";
import { microseconds } from "./support/mesh-protocol.js";
import { ownPostgres } from "./support/own-postgres.js";
import { type Shortage, smallDisk } from "./support/small-disk.js";

const timeout = patienceMs;

it("loses nothing confirmed when the disk is full, whether rows or its log do not fit, and goes on with space", {
  timeout,
}, async () => {
  const disk = smallDisk();
  await using postgres = await ownPostgres({ prepare: (dataDirectory) => disk.prepare(dataDirectory) });
  const payloadBytes = 1_900;
  await using mesh = await Mesh.start({
    url: postgres.url,
    peer: { sendTimeoutMs: 60_000 },
    perSecond: 50,
    payloadBytes,
  });
  const x = mesh.member("x");
  await mesh.current(x).crash();
  // 16 MB of rows wait: the table cannot stay as it is.
  await Promise.all(mesh.senders.map((sender) => mesh.current(sender).call("hurry", 4_500)));
  await eventually(
    "they are stored",
    async () => {
      const [row] = await rowsOf(
        postgres.url,
        "SELECT pg_total_relation_size('hawser_data.stored_messages')::float8 AS bytes",
      );
      return (row?.["bytes"] as number) > 16.5 * 1024 * 1024;
    },
    60_000,
  );
  for (const shortage of ["rows", "log"] satisfies Shortage[]) {
    const begun = microseconds();
    disk.fill(postgres, shortage);
    // A new file of the log is needed.
    if (shortage === "log") await onServer(postgres.url, "SELECT pg_switch_wal()").catch(() => undefined);
    // A sender with a suspended lease stores nothing, but its read of stored messages fails.
    const errors = () =>
      mesh.senders.map((sender) => [
        ...mesh.statuses(sender, "sender_store_error", begun),
        ...mesh.statuses(sender, "listener_store_error", begun),
      ]);
    await eventually("every sender fails at the store", () => errors().every(({ length }) => length > 0));
    const failed = microseconds();
    await eventually("it lasts", () => microseconds() > failed + 3_000_000);
    const ran = postgres.isRunning;
    disk.free(postgres);
    if (!postgres.isRunning) await postgres.start();
    const freed = microseconds();
    await eventually(
      "every sender stores again",
      () => mesh.senders.every((sender) => mesh.confirmed(sender, x).some(({ sentAt }) => sentAt > freed)),
      recoveryLimitMs,
    );
    const back = await mesh.recovered(
      freed,
      mesh.channels.filter(({ listener }) => listener !== x),
    );
    const said = new Set(
      errors()
        .flat()
        .map(({ status }) => status.message.replace(/\d+( to \d+)?/g, "…")),
    );
    console.log(
      `${disk.what} full (${shortage}): the server ${ran ? "stayed" : "ended"}, back after ${back.toFixed(0)} ms; ` +
        `senders said: ${[...said].join(" | ")}`,
    );
  }
  await mesh.launch(x);
  await mesh.recovered(microseconds(), mesh.channels, 30_000);
  await mesh.settle();
  const found = auditMesh(mesh);
  console.log(`full disk: ${found.summary}`);
  expect(problems(found.findings)).toEqual([]);
  expect(found.unknown).toBe(0);
});
