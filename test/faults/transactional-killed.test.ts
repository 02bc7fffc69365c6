/**
 * Transactional handlers whose processes, and whose Postgres, are killed: what they write through `message.client` is
 * there once for each message, however often the handler was started.
 */
import { expect, it } from "vitest";
import { onServer, rowsOf } from "../support/on-server.js";
import { audit, faultsOf, noFaults, summaryOf } from "./support/audit.js";
import { killsPerLoop, loopTimeoutMs, spread } from "./support/kills.js";
import { Mesh, recoveryLimitMs } from "./support/mesh.js";
import { effectsTable, microseconds } from "./support/mesh-protocol.js";
import { ownPostgres } from "./support/own-postgres.js";

const kills = killsPerLoop(5);

it(
  "have their effects exactly once",
  async () => {
    await using postgres = await ownPostgres();
    await onServer(postgres.url, effectsTable);
    await using mesh = await Mesh.start({
      url: postgres.url,
      peers: { x: { transactional: true }, y: { transactional: true } },
      handler: "effect",
      // A commit for each: slow disks are to keep up.
      perSecond: 5,
    });
    const recoveries: number[] = [];
    for (let kill = 0; kill < kills; kill++) {
      await Promise.all(mesh.senders.map((sender) => mesh.current(sender).call("hurry", 25)));
      const listener = mesh.listeners[kill % 2]!;
      await mesh.progress(listener, 1 + ((kill * 29) % 47));
      const restart = async (): Promise<number> => {
        await postgres.kill("SIGKILL");
        await postgres.start();
        return microseconds();
      };
      // In turn: a listener, Postgres, a sender, and a listener together with Postgres.
      const faults = [
        () => [mesh.replace(listener)],
        () => [restart()],
        () => [mesh.replace(mesh.senders[kill % 2]!)],
        () => [restart(), mesh.replace(listener)],
      ];
      const ends = await Promise.all(faults[kill % 4]!());
      recoveries.push(await mesh.resumed(Math.max(...ends)));
    }
    await mesh.settle(60_000);
    const found = audit(mesh);
    const counts = (await rowsOf(
      postgres.url,
      `SELECT listener, sender, run, number, count(*)::integer AS count FROM effects
       GROUP BY listener, sender, run, number`,
    )) as { listener: string; sender: string; run: number; number: number; count: number }[];
    const effects = new Map(
      counts.map(({ listener, sender, run, number, count }) => [`${sender} ${run} ${number} ${listener}`, count]),
    );
    const doubled = [...effects].filter(([, count]) => count !== 1);
    const missing = mesh.channels.flatMap(({ sender, listener }) =>
      mesh
        .confirmed(sender, listener)
        .map(({ run, number }) => `${sender.name} ${run} ${number} ${listener.name}`)
        .filter((key) => !effects.has(key)),
    );
    console.log(
      `transactional, ${kills} faults: ${effects.size} effects, ${doubled.length} doubled, ${missing.length} missing; ` +
        `${summaryOf(found)}; back after: ${spread(recoveries)}`,
    );
    expect(doubled).toEqual([]);
    expect(missing).toEqual([]);
    expect(faultsOf(found)).toEqual(noFaults);
    expect(Math.max(...recoveries)).toBeLessThan(recoveryLimitMs);
    // What the table has is in the order of sending, too.
    const inOrder = await rowsOf(postgres.url, "SELECT listener, sender, run, number FROM effects ORDER BY id");
    for (const { sender, listener } of mesh.channels) {
      const places = inOrder
        .filter((row) => row["sender"] === sender.name && row["listener"] === listener.name)
        .map((row) => [row["run"] as number, row["number"] as number] as const);
      expect(places).toEqual([...places].sort(([run1, one], [run2, other]) => run1 - run2 || one - other));
    }
  },
  loopTimeoutMs(kills),
);
