import { once } from "node:events";
import { existsSync } from "node:fs";
import { connect } from "node:net";
import { hostname } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type PeerWorld, peerWorld } from "../peer/support/world.js";
import { terminateHolder } from "../store/support/world.js";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { temporaryDirectory } from "../support/temporary.js";
import { hawser, jsonLines, startHawser, startListening, waitsFor } from "./support/hawser.js";
import { startPipeline, startShell } from "./support/pipeline.js";

let world: PeerWorld;
let round = 0;
/** Each test has a topic of its own, and a sender named after it. */
let topic: string;
let defaultName: string;
let shopName: string;
const options = () => ({ databaseUrl: world.url });

beforeAll(async () => {
  world = await peerWorld({ nats: false });
});
afterAll(() => world[Symbol.asyncDispose]());
beforeEach(() => {
  round += 1;
  topic = `orders${round}`;
  defaultName = `listen-${hostname()}-${topic}`;
  shopName = `shop-${round}`;
});

const listens = () =>
  eventually("it listens", async () => {
    return (await world.query("SELECT FROM hawser_data.listeners WHERE topic = $1", [topic])).length === 1;
  });

const pendingNumbers = async (): Promise<number> => {
  const [row] = await world.query<{ count: number }>(
    `SELECT coalesce(sum(least(s.messages, s.number - c.number)), 0)::integer AS count
       FROM hawser_data.stored_messages AS s JOIN hawser_data.cursors AS c USING (channel_id)
      WHERE (s.epoch, s.number) > (c.epoch, c.number)
        AND channel_id IN (SELECT channel_id FROM hawser_data.channels WHERE listener_name = $1)`,
    [defaultName],
  );
  return row!.count;
};

const endedClean = async () => {
  const [peer] = await world.query<{ clean: boolean }>("SELECT clean FROM hawser_data.peers WHERE name = $1", [
    defaultName,
  ]);
  return peer!.clean;
};

describe("hawser listen", () => {
  it("prints each message as one line of JSON with everything that is known of it", async () => {
    const listening = hawser(
      ["listen", topic, "--json", "--count", "3", "--subscribe", "news", "--subscribe", topic],
      options(),
    );
    await listens();
    const shop = await world.started(shopName);
    await shop.send(topic, '20 m of "rope"\n', {
      headers: [
        ["trace", "1"],
        ["trace", "2"],
      ],
    });
    await shop.send(topic, new Uint8Array([0xff, 0xfe]));
    await shop.send("news", "the harbour is open", { delivery: "at-most-once" });
    const { status, stdout } = await listening;
    expect(status).toBe(0);
    const known = {
      senderTopic: "shop",
      sender: shopName,
      attempt: 1,
      delivery: "at-least-once",
      headers: [],
      encoding: "utf8",
    };
    expect(jsonLines(stdout)).toEqual([
      {
        ...known,
        topic,
        payload: '20 m of "rope"\n',
        headers: [
          ["trace", "1"],
          ["trace", "2"],
        ],
      },
      { ...known, topic, payload: "//4=", encoding: "base64" },
      { ...known, topic: "news", payload: "the harbour is open", delivery: "at-most-once" },
    ]);
  });

  it("prints lines for people without characters that a terminal would obey", async () => {
    const listening = hawser(["listen", topic, "--count", "3"], options());
    await listens();
    const shop = await world.started(shopName);
    await shop.send(topic, "ahoj, světe 🌊");
    await shop.send(topic, "two\nlines \u001b[31mred\u202e");
    await shop.send(topic, new Uint8Array([0xff, 0xfe]));
    expect((await listening).stdout).toBe(
      ["ahoj, světe 🌊", "two\\nlines \\u001b[31mred\\u202e", "base64 //4="]
        .map((line) => `${topic} ${shopName} ${line}\n`)
        .join(""),
    );
  });

  it("prints every payload as text, or in base64", async () => {
    for (const [flag, payload, encoding] of [
      ["--base64", "aGk=", "base64"],
      ["--text", "hi", "utf8"],
    ] as const) {
      const listening = hawser(["listen", topic, "--json", "--count", "1", flag], options());
      await listens();
      await (await world.started(`${shopName}-${encoding}`)).send(topic, "hi");
      expect(jsonLines((await listening).stdout)).toMatchObject([{ payload, encoding }]);
    }
  });

  it("says once that diallers are refused, and counts the others, however many there are", async () => {
    const listening = await startListening([topic], options());
    const [{ addr }] = (await world.query<{ addr: string }>("SELECT addr FROM hawser_data.listeners WHERE topic = $1", [
      topic,
    ])) as [{ addr: string }];
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

  it("finds what was stored for its name while it was away, in order, and takes no more than it was asked to", async () => {
    const first = hawser(["listen", topic, "--count", "1", "--json"], options());
    await listens();
    const shop = await world.started(shopName);
    await shop.send(topic, "0");
    await first;
    for (let sent = 1; sent <= 5; sent++) {
      expect(await shop.send(topic, String(sent))).toEqual({ outcome: "stored", peer: defaultName });
    }
    const second = await hawser(["listen", topic, "--count", "2", "--json", "--quiet"], options());
    expect(jsonLines(second.stdout).map(({ payload }) => payload)).toEqual(["1", "2"]);
    expect(second.stderr).toBe("");
    await eventually("the others wait", async () => (await pendingNumbers()) === 3);
    const third = await hawser(["listen", topic, "--count", "3", "--json"], options());
    expect(jsonLines(third.stdout).map(({ payload }) => payload)).toEqual(["3", "4", "5"]);
  });

  it("with --durable is stored for by senders that never met it", async () => {
    const listening = await startListening([topic, "--name", `audit-${round}`, "--durable"], options());
    listening.child.kill("SIGTERM");
    expect(await listening.ended).toMatchObject({ status: 0 });
    const sent = await hawser(["send", topic, "for the record"], options());
    expect(sent).toMatchObject({ status: 0, stdout: `stored for audit-${round}\n` });
    const { stdout } = await hawser(["listen", topic, "--name", `audit-${round}`, "--count", "1", "--json"], options());
    expect(jsonLines(stdout)).toMatchObject([{ payload: "for the record" }]);
  });

  it("ends at its --timeout: in good order where no --count was asked for, else failing when fewer came", async () => {
    expect(await hawser(["listen", topic, "--timeout", "1s"], options())).toMatchObject({ status: 0, stdout: "" });
    const { status, stderr } = await hawser(["listen", topic, "--count", "2", "--timeout", "1s"], options());
    expect(status).toBe(75);
    expect(stderr).toContain("no message of 2 came within 1s");
  });

  it("ends on a signal with status 0 and leaves the directory", async () => {
    const listening = await startListening([topic], options());
    const entries = () => world.query("SELECT listener_name FROM hawser_data.listeners WHERE topic = $1", [topic]);
    expect(await entries()).toEqual([{ listener_name: defaultName }]);
    listening.child.kill("SIGTERM");
    expect(await listening.ended).toMatchObject({ status: 0, stdout: "" });
    expect(await entries()).toEqual([]);
    expect(await endedClean()).toBe(true);
  });

  it("told to stop while it starts, ends with status 0", async () => {
    await using own = await peerWorld({ nats: false });
    await own.query("BEGIN");
    await own.query("LOCK TABLE hawser_data.listeners IN ACCESS EXCLUSIVE MODE");
    const starting = startHawser(["listen", topic], { databaseUrl: own.url });
    await eventually("it is starting", () => waitsFor("listeners", own));
    starting.child.kill("SIGTERM");
    await own.query("ROLLBACK");
    expect(await starting.ended).toMatchObject({ status: 0, stdout: "" });
  });

  it("leaves standard input to others", async () => {
    const script = `printf 'one\\ntwo\\n' | { "$@" >/dev/null 2>&1; cat; }`;
    const shell = startShell(script, ["listen", topic, "--timeout", "1s"], world.url);
    expect((await shell.ended).stdout).toBe("one\ntwo\n");
  });

  it("refuses a name in use, values that are no numbers, and what excludes each other", async () => {
    const taken = `${topic}-1`;
    await world.started(taken);
    const inUse = await hawser(["listen", topic, "--name", taken], options());
    expect(inUse).toMatchObject({ status: 73, stdout: "" });
    expect(inUse.stderr).toContain(`the name "${taken}" is held by another process`);
    for (const [args, message] of [
      [["--count", "0"], '--count "0" is not a whole number from 1'],
      [["--timeout", "1"], '--timeout "1" is not a duration from 1ms to 24d; write a unit: 1ms or 1s'],
      [["--base64", "--text"], "exclude each other"],
      [["--subscribe", "a:b"], "[invalid_argument]"],
    ] as const) {
      const { status, stderr } = await hawser(["listen", topic, ...args], options());
      expect(status).toBe(64);
      expect(stderr).toContain(message);
    }
    const long = await hawser(["listen", "x".repeat(250)], options());
    expect(long.stderr).toContain("too long for a name; choose one with --name");
  });

  it("ends with the status of the error when another process takes its name", async () => {
    const listening = hawser(["listen", topic], options());
    await listens();
    await world.query("SELECT FROM hawser.end_ownership($1, true)", [defaultName]);
    await terminateHolder(world, defaultName);
    const { status, stderr } = await listening;
    expect(status).toBe(73);
    expect(stderr).toContain("[name_lost]");
  });
});

describe("hawser listen in a pipeline", () => {
  it("ends in good order when its consumer is killed, and leaves what it could not write for the next start", async () => {
    const pipeline = startPipeline(["listen", topic, "--json"], world.url);
    await listens();
    const shop = await world.started(shopName);
    expect(await shop.send(topic, "read")).toMatchObject({ outcome: "delivered" });
    await pipeline.lines.length(1);
    process.kill(await pipeline.consumerPid, "SIGKILL");
    await eventually("its end of the pipe is closed", async () => !isAlive(await pipeline.consumerPid));
    for (const text of ["1", "2"]) expect(await shop.send(topic, text)).toMatchObject({ outcome: "stored" });
    expect(await pipeline.status).toBe(0);
    expect(await endedClean()).toBe(true);
    const next = await hawser(["listen", topic, "--json", "--count", "2"], { databaseUrl: world.url });
    expect(jsonLines(next.stdout)).toMatchObject([
      { payload: "1", attempt: 1 },
      { payload: "2", attempt: 1 },
    ]);
  });

  it("takes no more than a consumer that does not read has room for, and ends all the same", async () => {
    const pipeline = startPipeline(["listen", topic, "--json"], world.url, false);
    await listens();
    const shop = await world.started(shopName);
    const payloads = Array.from({ length: 40 }, (_, index) => `${index} ${"x".repeat(10_000)}`);
    const receipts = await Promise.all(payloads.map((payload) => shop.send(topic, payload)));
    // A pipe of Linux holds 64 KiB.
    const delivered = receipts.filter(({ outcome }) => outcome === "delivered").length;
    expect(delivered).toBeLessThanOrEqual(7);
    process.kill(await pipeline.listenerPid, "SIGTERM");
    expect(await pipeline.status).toBe(0);
    const left = await pendingNumbers();
    expect(left).toBeGreaterThanOrEqual(payloads.length - 7);
    const next = await hawser(["listen", topic, "--json", "--count", `${left}`], { databaseUrl: world.url });
    expect(jsonLines(next.stdout).map(({ payload }) => payload)).toEqual(payloads.slice(-left));
  });

  it("passes very many messages on, all and in order, as fast as they are read", async () => {
    const pipeline = startPipeline(["listen", topic, "--json"], world.url);
    await listens();
    const count = atDepth(20_000);
    const input = Array.from({ length: count }, (_, index) => `${index}\n`).join("");
    const { status } = await hawser(["send", topic, "--lines", "--quiet"], { databaseUrl: world.url, input });
    expect(status).toBe(0);
    await pipeline.lines.until("all were read", (all) => all.length >= count, 60_000);
    expect(pipeline.lines.all.map((line) => JSON.parse(line).payload)).toEqual(
      Array.from({ length: count }, (_, index) => String(index)),
    );
    process.kill(await pipeline.listenerPid, "SIGTERM");
    expect(await pipeline.status).toBe(0);
  });

  it.runIf(existsSync("/dev/full"))("tells of a full disk, and leaves the message for the next start", async () => {
    const script = '"$@" >/dev/full';
    const listening = startShell(script, ["listen", topic, "--json"], world.url);
    await listens();
    const shop = await world.started(shopName);
    expect(await shop.send(topic, "kept")).toMatchObject({ outcome: "stored" });
    const { status, stderr } = await listening.ended;
    expect(status).toBe(70);
    expect(stderr.match(/ENOSPC/g)).toHaveLength(1);
    const next = await hawser(["listen", topic, "--json", "--count", "1"], { databaseUrl: world.url });
    expect(jsonLines(next.stdout)).toMatchObject([{ payload: "kept" }]);
  });

  it("writes to a file as to a pipe", async () => {
    const file = join(temporaryDirectory(), "messages");
    const listening = startShell(
      `"$@" >'${file}'; wc -l <'${file}'`,
      ["listen", topic, "--count", "2", "--json"],
      world.url,
    );
    await listens();
    const shop = await world.started(shopName);
    await shop.send(topic, "one");
    await shop.send(topic, "two");
    expect((await listening.ended).stdout.trim()).toBe("2");
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
