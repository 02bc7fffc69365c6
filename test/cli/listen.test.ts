import { describe, expect, it } from "vitest";
import { terminateHolder } from "../store/support/world.js";
import { eventually } from "../support/eventually.js";
import { slowIt } from "../support/slow-it.js";
import { hawser, jsonLines, startListening } from "./support/hawser.js";
import { ownTopics } from "./support/listeners.js";
import { startPipeline } from "./support/pipeline.js";

const own = ownTopics();

describe("hawser listen", () => {
  it("prints each message as one line of JSON with everything that is known of it", async () => {
    const { world, topic, shopName, databaseUrl } = own();
    const listening = hawser(["listen", topic, "--json", "--count", "3", "--subscribe", "news", "--subscribe", topic], {
      databaseUrl,
    });
    await own().listens();
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
    const { world, topic, shopName, databaseUrl } = own();
    const listening = hawser(["listen", topic, "--count", "3"], { databaseUrl });
    await own().listens();
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
    const { world, topic, shopName, databaseUrl } = own();
    for (const [flag, payload, encoding] of [
      ["--base64", "aGk=", "base64"],
      ["--text", "hi", "utf8"],
    ] as const) {
      const listening = hawser(["listen", topic, "--json", "--count", "1", flag], { databaseUrl });
      await own().listens();
      await (await world.started(`${shopName}-${encoding}`)).send(topic, "hi");
      expect(jsonLines((await listening).stdout)).toMatchObject([{ payload, encoding }]);
    }
  });

  it("finds what was stored for its name while it was away, in order, and takes no more than it was asked to", async () => {
    const { world, topic, shopName, defaultName, databaseUrl } = own();
    const first = hawser(["listen", topic, "--count", "1", "--json"], { databaseUrl });
    await own().listens();
    const shop = await world.started(shopName);
    await shop.send(topic, "0");
    await first;
    for (let sent = 1; sent <= 5; sent++) {
      expect(await shop.send(topic, String(sent))).toEqual({ outcome: "stored", peer: defaultName });
    }
    const second = await hawser(["listen", topic, "--count", "2", "--json", "--quiet"], { databaseUrl });
    expect(jsonLines(second.stdout).map(({ payload }) => payload)).toEqual(["1", "2"]);
    expect(second.stderr).toBe("");
    await eventually("the others wait", async () => (await own().pending()) === 3);
    const third = await hawser(["listen", topic, "--count", "3", "--json"], { databaseUrl });
    expect(jsonLines(third.stdout).map(({ payload }) => payload)).toEqual(["3", "4", "5"]);
  });

  it("with --durable is stored for by senders that never met it", async () => {
    const { topic, databaseUrl } = own();
    const listening = await startListening([topic, "--name", `audit-${topic}`, "--durable"], { databaseUrl });
    listening.child.kill("SIGTERM");
    expect(await listening.ended).toMatchObject({ status: 0 });
    const sent = await hawser(["send", topic, "for the record"], { databaseUrl });
    expect(sent).toMatchObject({ status: 0, stdout: `stored for audit-${topic}\n` });
    const { stdout } = await hawser(["listen", topic, "--name", `audit-${topic}`, "--count", "1", "--json"], {
      databaseUrl,
    });
    expect(jsonLines(stdout)).toMatchObject([{ payload: "for the record" }]);
  });

  it("refuses the name of a listener of other topics, which keep their messages, and takes them with --subscribe", async () => {
    const { world, topic, shopName, databaseUrl } = own();
    const name = `service-${topic}`;
    const others = [`${topic}-bills`, `${topic}-returns`];
    const service = world.peer(name, { topic });
    for (const each of [topic, ...others]) await service.handle(each, { durable: each === others[0] }, () => undefined);
    await service.start();
    const shop = await world.started(shopName);
    for (const each of [topic, ...others]) await shop.send(each, "first");
    await service.stop();
    const sent = [topic, ...others, topic];
    for (const each of sent) expect(await shop.send(each, "second")).toEqual({ outcome: "stored", peer: name });
    const listen = [topic, "--name", name, "--durable", "--json", "--count", "4"];
    const refused = await hawser(["listen", ...listen], { databaseUrl });
    expect(refused).toMatchObject({ status: 64, stdout: "" });
    expect(refused.stderr).toContain(
      `"${name}" also listens to "${others[0]}", "${others[1]}", whose messages would become dead letters here: ` +
        `choose another name with --name, or take them, too, with --subscribe ${others[0]} --subscribe ${others[1]}`,
    );
    const taken = await hawser(["listen", ...listen, ...others.flatMap((each) => ["--subscribe", each])], {
      databaseUrl,
    });
    expect(jsonLines(taken.stdout)).toMatchObject(sent.map((each) => ({ topic: each, payload: "second" })));
    expect(await world.query("SELECT FROM hawser_data.dead_letters")).toEqual([]);
  });

  it("ends at its --timeout: in good order where no --count was asked for, else failing when fewer came", async () => {
    const { topic, databaseUrl } = own();
    expect(await hawser(["listen", topic, "--timeout", "200ms"], { databaseUrl })).toMatchObject({
      status: 0,
      stdout: "",
    });
    // The first one ends before the peer has started.
    for (const timeout of ["1ms", "200ms"]) {
      const { status, stderr } = await hawser(["listen", topic, "--count", "2", "--timeout", timeout], { databaseUrl });
      expect(status).toBe(75);
      expect(stderr).toContain(`no message of 2 came within ${timeout}`);
    }
  });

  it("ends on a signal with status 0 and leaves the directory", async () => {
    const { world, topic, defaultName, databaseUrl } = own();
    const listening = await startListening([topic], { databaseUrl });
    const entries = () => world.query("SELECT listener_name FROM hawser_peer_data.listeners WHERE topic = $1", [topic]);
    expect(await entries()).toEqual([{ listener_name: defaultName }]);
    listening.child.kill("SIGTERM");
    expect(await listening.ended).toMatchObject({ status: 0, stdout: "" });
    expect(await entries()).toEqual([]);
    expect(await own().endedClean()).toBe(true);
  });

  slowIt("refuses a name in use, values that are no numbers, and what excludes each other", async () => {
    const { world, topic, databaseUrl } = own();
    const taken = `${topic}-1`;
    await world.started(taken);
    const inUse = await hawser(["listen", topic, "--name", taken], { databaseUrl });
    expect(inUse).toMatchObject({ status: 73, stdout: "" });
    expect(inUse.stderr).toContain(`the name "${taken}" is held by another process`);
    for (const [args, message] of [
      [["--count", "0"], '--count "0" is not a whole number from 1'],
      [["--timeout", "1"], '--timeout "1" is not a duration from 1ms to 24d; write a unit: 1ms or 1s'],
      [["--base64", "--text"], "exclude each other"],
      [["--subscribe", "a:b"], "[invalid_argument]"],
    ] as const) {
      const { status, stderr } = await hawser(["listen", topic, ...args], { databaseUrl });
      expect(status).toBe(64);
      expect(stderr).toContain(message);
    }
    const long = await hawser(["listen", "x".repeat(250)], { databaseUrl });
    expect(long.stderr).toContain("too long for a name; choose one with --name");
  });

  slowIt("ends with the status of the error when another process takes its name", async () => {
    const { world, topic, defaultName, databaseUrl } = own();
    const listening = hawser(["listen", topic], { databaseUrl });
    await own().listens();
    await world.query("SELECT FROM hawser.end_ownership($1, true)", [defaultName]);
    await terminateHolder(world, defaultName);
    const { status, stderr } = await listening;
    expect(status).toBe(73);
    expect(stderr).toContain("[name_lost]");
  });
});

describe("hawser listen in a pipeline", () => {
  it("ends in good order when its consumer is killed, and leaves what it could not write for the next start", async () => {
    const { world, topic, shopName, databaseUrl } = own();
    const pipeline = startPipeline(["listen", topic, "--json"], databaseUrl);
    await own().listens();
    const shop = await world.started(shopName);
    expect(await shop.send(topic, "read")).toMatchObject({ outcome: "delivered" });
    await pipeline.lines.length(1);
    process.kill(await pipeline.consumerPid, "SIGKILL");
    await eventually("its end of the pipe is closed", async () => !isAlive(await pipeline.consumerPid));
    for (const text of ["1", "2"]) expect(await shop.send(topic, text)).toMatchObject({ outcome: "stored" });
    expect(await pipeline.status).toBe(0);
    expect(await own().endedClean()).toBe(true);
    const next = await hawser(["listen", topic, "--json", "--count", "2"], { databaseUrl });
    expect(jsonLines(next.stdout)).toMatchObject([
      { payload: "1", attempt: 1 },
      { payload: "2", attempt: 1 },
    ]);
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
