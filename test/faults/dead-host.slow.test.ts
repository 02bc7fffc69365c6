/**
 * A host that dies without a word while Postgres sends it the answer that a handler waits for. As long as bytes of an
 * answer are under way the kernel sends no keepalives, so that only `tcp_user_timeout` ends the session, and with it the
 * transaction that has the channel.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { Peer, type PeerOptions } from "../../src/jobs-and-peers/peer/index.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { OtherHost, prefixBits } from "./support/dead-host.js";
import { patienceMs } from "./support/kills.js";
import { MeshProcess } from "./support/mesh-process.js";
import { effectsTable, type MeshPeerOptions, microseconds } from "./support/mesh-protocol.js";
import { ownPostgres } from "./support/own-postgres.js";

describe.concurrent("a host that dies with a handler's answer in flight", () => {
  it.for([
    ["a short one", 1_000],
    ["one that fills the buffers, so that Postgres waits in the middle of it", 50_000_000],
  ] as const)("has its channel go on: %s", { timeout: patienceMs }, async ([_, answerBytes], { skip }) => {
    using host = OtherHost.make();
    if (host === undefined) return skip("network namespaces are not permitted here");
    const directory = mkdtempSync(join(tmpdir(), "hawser-dead-host-"));
    using _removed = { [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }) };
    await using postgres = await ownPostgres({ network: { address: host.here, prefixBits } });
    await onServer(postgres.url, effectsTable);
    const url = new URL(postgres.url);
    url.hostname = host.here;
    const settings: Partial<PeerOptions> = { databaseUrl: url.href, allowPlaintext: true };

    const listener = (run: number, address: string, more: Partial<MeshPeerOptions>): MeshPeerOptions => ({
      peer: { name: "x", topic: "x", listen: `${address}:0`, nameWaitMs: 120_000, ...settings },
      run,
      journal: join(directory, `x-${run}`),
      handler: "effect",
      ...more,
    });
    const slow = listener(1, host.there, { handler: "answer", handlerMs: 3_000, answerBytes });
    await using first = new MeshProcess(slow, [], host.launcher);
    await first.call("run");
    await using sender = new Peer({ name: "a", topic: "a", listen: `${host.here}:0`, ...settings });
    await sender.start();
    const send = (number: number) => sender.send("x", `a 1 ${number} ${microseconds()} fine `);
    const sent = send(1);
    const working =
      "SELECT FROM pg_stat_activity WHERE query LIKE '%FROM pg_sleep%' AND state = 'active' AND pid <> pg_backend_pid()";
    await eventually("Postgres works on the answer", async () => (await rowsOf(postgres.url, working)).length === 1);
    host.die();
    const died = microseconds();
    await first.crash();

    await using second = new MeshProcess(listener(2, host.here, {}));
    await second.call("run");
    const named = (microseconds() - died) / 1_000;
    const begun = (number: number) => second.journal.refresh().begun.find((line) => line.number === number);
    await eventually("its message is begun anew", () => begun(1) !== undefined, 120_000);
    const goesOn = (begun(1)!.at - died) / 1_000;
    expect((await sent).outcome).toBe("stored");
    await send(2);
    await eventually("the next one is handled", () => begun(2) !== undefined, 120_000);
    const next = (begun(2)!.at - died) / 1_000;
    await eventually("both have their effect", async () => (await effects(postgres.url)).length >= 2);
    console.log(
      `an answer of ${answerBytes} bytes: the name was free after ${named.toFixed(0)} ms, its message begun after ` +
        `${goesOn.toFixed(0)} ms, the next one after ${next.toFixed(0)} ms`,
    );
    expect(first.journal.refresh().begun.map(({ number }) => number)).toEqual([1]);
    expect(await effects(postgres.url)).toEqual([1, 2]);
  });
});

async function effects(url: string): Promise<unknown[]> {
  const rows = await rowsOf(url, "SELECT number FROM effects ORDER BY number");
  return rows.map((row) => row["number"]);
}
