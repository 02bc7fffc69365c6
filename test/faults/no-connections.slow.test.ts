/**
 * A Postgres whose connections are all taken by somebody else.
 */
import { expect, it } from "vitest";
import { RemoteError } from "../scenarios/support/remote-process.js";
import { eventually } from "../support/eventually.js";
import { connectionHog } from "./support/connection-hog.js";
import { patienceMs } from "./support/kills.js";
import { problems } from "./support/ledger.js";
import { Mesh } from "./support/mesh.js";
import { auditMesh } from "./support/mesh-audit.js";
import { MeshProcess } from "./support/mesh-process.js";
import { microseconds } from "./support/mesh-protocol.js";
import { ownPostgres } from "./support/own-postgres.js";

const timeout = patienceMs;

it("a Postgres without free connections does not disturb those who have theirs, refuses starts clearly, and is survived by all", {
  timeout,
}, async () => {
  await using postgres = await ownPostgres({ maxConnections: 40 });
  await using mesh = await Mesh.start({
    url: postgres.url,
    peer: { sendTimeoutMs: 60_000, poolSize: 2 },
    perSecond: 50,
  });
  await using hog = await connectionHog(postgres.url);
  await hog.takeAll();
  const begun = microseconds();

  // Live delivery goes on with the connections that there are.
  await eventually("every channel delivers 100 more", () =>
    mesh.channels.every(({ sender, listener }) => {
      const meanwhile = mesh.confirmed(sender, listener).filter(({ sentAt }) => sentAt > begun);
      return meanwhile.filter(({ outcome }) => outcome === "delivered").length >= 100;
    }),
  );
  // A start fails with an error that says why, at once or after a while.
  await using newcomer = new MeshProcess({
    peer: { name: "n", topic: "n", listen: "127.0.0.1:0", databaseUrl: postgres.url, nameWaitMs: 1_000 },
    run: 1,
    journal: mesh.journalOf("newcomer"),
  });
  const refusal = await newcomer.call("run").then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(refusal).toBeInstanceOf(RemoteError);
  expect((refusal as RemoteError).failure).toMatchObject({
    code: "startup_failed",
    message: expect.stringContaining("too many clients already"),
  });

  // They lose theirs, and find none. The hog takes each as soon as it is free. One that is being made has no name yet.
  const cutOff = async (): Promise<void> => {
    await hog.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name NOT IN ('hog', '') AND backend_type = 'client backend'",
    );
    await hog.takeAll();
  };
  await cutOff();
  const cut = microseconds();
  // A sender whose lease is suspended stores nothing, and so has nothing to tell.
  for (const member of mesh.listeners) {
    await eventually(`"${member.name}" tells that it finds no connection`, async () => {
      const hasTold = mesh
        .statuses(member, "listener_store_error", cut)
        .some(({ status }) => /too many clients|is suspended/.test(status.message));
      // Somebody may have been quicker than the hog, and have one.
      if (!hasTold) await cutOff();
      return hasTold;
    });
  }
  // Beyond the expiry of the leases.
  await eventually("it has lasted", () => microseconds() > cut + 12_000_000);
  await hog.leave();
  const ended = microseconds();
  const back = await mesh.recovered(ended);
  await newcomer.call("run");
  await mesh.settle();
  const found = auditMesh(mesh);
  console.log(`no free connections: back after ${back.toFixed(0)} ms; ${found.summary}`);
  expect(problems(found.findings)).toEqual([]);
  expect(found.unknown).toBe(0);
  expect((await newcomer.finish()).status).toBe(0);
});
