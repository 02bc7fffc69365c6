import { once } from "node:events";
import { existsSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { peerWorld } from "../peer/support/world.js";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { temporaryDirectory } from "../support/temporary.js";
import { hawser, jsonLines, startHawser, startListening, waitsFor } from "./support/hawser.js";
import { ownTopics } from "./support/listeners.js";
import { startPipeline, startShell } from "./support/pipeline.js";

const own = ownTopics();

describe("hawser listen", () => {
  it("says once that diallers are refused, and counts the others, however many there are", async () => {
    const { world, topic, databaseUrl } = own();
    const listening = await startListening([topic], { databaseUrl });
    const [{ addr }] = (await world.query<{ addr: string }>(
      "SELECT addr FROM hawser_peer_data.listeners WHERE topic = $1",
      [topic],
    )) as [{ addr: string }];
    const { hostname, port } = new URL(`tcp://${addr}`);
    const refused = 100;
    for (let n = 0; n < refused; n++) {
      const socket = connect(Number(port), hostname, () => socket.write(`GET /${n} HTTP/1.1\r\n\r\n`));
      socket.on("error", () => undefined).resume();
      await once(socket, "close");
    }
    listening.child.kill("SIGINT");
    const { status, stderr } = await listening.ended;
    expect(status).toBe(0);
    const lines = stderr.split("\n").filter((line) => line.includes("[handshake_refused]"));
    const counts = lines.map((line) => Number(/\((\d+) more\)/.exec(line)?.[1] ?? 1));
    expect(counts.reduce((sum, count) => sum + count)).toBe(refused);
    // The first one, those of each interval, and the rest at the end.
    expect(lines.length).toBeLessThan(refused);
  });

  it("told to stop while it starts, ends with status 0", async () => {
    const { topic } = own();
    await using locked = await peerWorld({ nats: false });
    await locked.query("BEGIN");
    await locked.query("LOCK TABLE hawser_peer_data.listeners IN ACCESS EXCLUSIVE MODE");
    const starting = startHawser(["listen", topic], { databaseUrl: locked.url });
    await eventually("it is starting", () => waitsFor("listeners", locked));
    starting.child.kill("SIGTERM");
    await locked.query("ROLLBACK");
    expect(await starting.ended).toMatchObject({ status: 0, stdout: "" });
  });

  it("leaves standard input to others", async () => {
    const { topic, databaseUrl } = own();
    const script = `printf 'one\\ntwo\\n' | { "$@" >/dev/null 2>&1; cat; }`;
    const shell = startShell(script, ["listen", topic, "--timeout", "1s"], databaseUrl);
    expect((await shell.ended).stdout).toBe("one\ntwo\n");
  });
});

describe("hawser listen in a pipeline", () => {
  it("takes no more than a consumer that does not read has room for, and ends all the same", async () => {
    const { world, topic, shopName, databaseUrl } = own();
    const pipeline = startPipeline(["listen", topic, "--json"], databaseUrl, false);
    await own().listens();
    const shop = await world.started(shopName);
    const payloads = Array.from({ length: 40 }, (_, index) => `${index} ${"x".repeat(10_000)}`);
    const receipts = await Promise.all(payloads.map((payload) => shop.send(topic, payload)));
    // A pipe of Linux holds 64 KiB.
    const delivered = receipts.filter(({ outcome }) => outcome === "delivered").length;
    expect(delivered).toBeLessThanOrEqual(7);
    process.kill(await pipeline.listenerPid, "SIGTERM");
    expect(await pipeline.status).toBe(0);
    const left = await own().pending();
    expect(left).toBeGreaterThanOrEqual(payloads.length - 7);
    const next = await hawser(["listen", topic, "--json", "--count", `${left}`], { databaseUrl });
    expect(jsonLines(next.stdout).map(({ payload }) => payload)).toEqual(payloads.slice(-left));
  });

  it("passes very many messages on, all and in order, as fast as they are read", async () => {
    const { world, topic, shopName, databaseUrl } = own();
    const pipeline = startPipeline(["listen", topic, "--json"], databaseUrl);
    await own().listens();
    const count = atDepth(20_000);
    const shop = await world.started(shopName);
    for (let from = 0; from < count; from += 1_000)
      await Promise.all(
        Array.from({ length: Math.min(1_000, count - from) }, (_, index) => shop.send(topic, String(from + index))),
      );
    await pipeline.lines.until("all were read", (all) => all.length >= count, 60_000);
    expect(pipeline.lines.all.map((line) => JSON.parse(line).payload)).toEqual(
      Array.from({ length: count }, (_, index) => String(index)),
    );
    process.kill(await pipeline.listenerPid, "SIGTERM");
    expect(await pipeline.status).toBe(0);
  });

  it.runIf(existsSync("/dev/full"))("tells of a full disk, and leaves the message for the next start", async () => {
    const { world, topic, shopName, databaseUrl } = own();
    const script = '"$@" >/dev/full';
    const listening = startShell(script, ["listen", topic, "--json"], databaseUrl);
    await own().listens();
    const shop = await world.started(shopName);
    expect(await shop.send(topic, "kept")).toMatchObject({ outcome: "stored" });
    const { status, stderr } = await listening.ended;
    expect(status).toBe(70);
    expect(stderr.match(/ENOSPC/g)).toHaveLength(1);
    const next = await hawser(["listen", topic, "--json", "--count", "1"], { databaseUrl });
    expect(jsonLines(next.stdout)).toMatchObject([{ payload: "kept" }]);
  });

  it("writes to a file as to a pipe", async () => {
    const { world, topic, shopName, databaseUrl } = own();
    const file = join(temporaryDirectory(), "messages");
    const listening = startShell(
      `"$@" >'${file}'; wc -l <'${file}'`,
      ["listen", topic, "--count", "2", "--json"],
      databaseUrl,
    );
    await own().listens();
    const shop = await world.started(shopName);
    await shop.send(topic, "one");
    await shop.send(topic, "two");
    expect((await listening.ended).stdout.trim()).toBe("2");
  });
});
