/**
 * Status events: what no call can throw.
 */

import { connect } from "node:net";
import { describe, expect, it, vi } from "vitest";
import { enqueue, type PeerStatus } from "../../src/jobs-and-peers/peer/index.js";
import { eventually } from "../support/eventually.js";
import { tableNamed } from "../support/tables.js";
import { failure } from "./support/errors.js";
import { Log } from "./support/log.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { TestPeer } from "./support/world.js";

const world = sharedPeerWorld();

const kinds = (peer: TestPeer): string[] => peer.statuses.all.map(({ kind }) => kind);

/** Lets every write of a table fail until it is mended. */
async function breakTable(table: string): Promise<() => Promise<void>> {
  await world.query(`ALTER TABLE ${tableNamed(table)} ADD CONSTRAINT broken CHECK (false) NOT VALID`);
  return async () => {
    await world.query(`ALTER TABLE ${tableNamed(table)} DROP CONSTRAINT broken`);
  };
}

/** Takes a name away, as a process that took it elsewhere would have. */
async function takeAway(name: string): Promise<void> {
  await world.query("SELECT FROM hawser.end_ownership($1, true)", [name]);
}

describe("a sender hears", () => {
  it("that a connection was made and has ended, and who serves a topic it has sent to", async () => {
    const [a, b] = await world.running("a-1", "b-1");
    await world.started("c-1");
    await a.send("b", "x");
    expect(await a.saw("peer_connected")).toMatchObject({ peer: "b-1" });
    await b.stop();
    expect(await a.saw("peer_disconnected")).toMatchObject({ peer: "b-1" });
    expect(await a.saw("peer_unsubscribed")).toMatchObject({ topic: "b", peer: "b-1" });
    const before = a.statuses.all.length;
    await b.record();
    expect(await a.saw("peer_subscribed", undefined, before)).toMatchObject({ topic: "b", peer: "b-1" });
    await a.saw("peer_connected", undefined, before);
    // Of the topic "c", which it has never sent to, it hears nothing.
    expect(JSON.stringify(a.statuses.all)).not.toContain("c-1");
  });

  it("that messages cannot be stored; they are afterwards, also those that were given up as unknown in time", async () => {
    const [a, b] = await world.left("1");
    const hasty = await world.started("hasty-1", { sendTimeoutMs: 200 });
    await world.list("b", "b-1");
    await hasty.listenersOf("b", { refresh: true });
    const mend = await breakTable("stored_messages");
    const sent = a.send("b", "2");
    const status = await a.saw("sender_store_error");
    expect(status).toMatchObject({ peer: "b-1", error: { code: "store_failed" } });
    expect(status.message).toContain("broken");
    const error = await failure("store_failed", hasty.send("b", "2"));
    expect(error).toMatchObject({ outcome: "unknown", retryable: true });
    expect(error.message).toContain('"b-1"');
    await mend();
    expect((await sent).outcome).toBe("stored");
    await eventually("it is stored after all", async () => (await hasty.pending()).count === 1);
    expect((await hasty.send("b", "3")).outcome).toBe("stored");
    await b.record();
    await b.received.length(4);
    const came = b.received.all.map(({ sender, text }) => `${sender} ${text}`).sort();
    expect(came).toEqual(["a-1 1", "a-1 2", "hasty-1 2", "hasty-1 3"]);
  });

  it("that an address leads to another peer", async () => {
    const [a, b] = await world.running("a-1", "b-1");
    await world.list("x", "x-1", { addr: b.localAddress });
    expect(await a.send("x", "not for b")).toEqual({ outcome: "stored", peer: "x-1" });
    expect(await a.saw("sender_send_error")).toMatchObject({ peer: "x-1", error: { code: "wrong_peer" } });
    expect(await b.saw("handshake_refused")).toMatchObject({ code: "wrong_peer" });
    expect(b.texts).toEqual([]);
  });

  it("nothing any more after off", async () => {
    const a = world.peer("a-1");
    const heard: PeerStatus[] = [];
    const listener = (status: PeerStatus): void => void heard.push(status);
    expect(a.on("status", listener).off("status", listener)).toBe(a);
    await a.record();
    await world.started("b-1");
    await a.send("b", "x");
    expect(kinds(a)).toContain("peer_connected");
    expect(heard).toEqual([]);
  });
});

it("a logger hears of failed attempts, dead letters, and what cannot be stored, and how often", async () => {
  const lines: { readonly level: string; readonly details: Record<string, unknown>; readonly message: string }[] = [];
  const write = (level: string) => (details: Record<string, unknown>, message: string) =>
    void lines.push({ level, details, message });
  const logger = { debug: () => undefined, info: write("info"), warn: write("warn"), error: write("error") };
  const error = new Error("no ledger");
  const [, gone] = await world.left("1");
  await world.list("b", gone.name);
  const d = await world.started("d-1", { logger, defaults: { retry: { attempts: 3, delayMs: 1 } } }, () => {
    throw error;
  });
  const lineOf = (message: string, from = 0) => lines.slice(from).find((line) => line.message === message);
  const id = String(await enqueue(world, "d", "x", { messageId: "order-17" }));
  await d.saw("dead_letter");
  const failed = lineOf("an attempt to handle a message failed");
  expect(failed).toMatchObject({ level: "warn", details: { client: "d-1", id, topic: "d", attempt: 1, err: error } });
  const dead = lineOf("a message became a dead letter, or was dropped");
  expect(dead).toMatchObject({
    level: "warn",
    details: { id, topic: "d", stored: true, words: "d: Error: no ledger" },
  });

  const mend = await breakTable("stored_messages");
  const sent = d.send("b", "2");
  await d.saw("sender_store_error");
  expect(lineOf("messages could not be stored")).toMatchObject({ level: "warn", details: { topic: "b", peer: "b-1" } });
  await mend();
  await sent;
  const before = lines.length;
  await d.stop();
  expect(lineOf("an attempt to handle a message failed", before)).toMatchObject({ details: { times: 2 } });
});

describe("a listener hears", () => {
  it("that a cursor cannot be committed; nothing is acknowledged until it is, and nothing is handled twice", async () => {
    const a = await world.started("a-1", { tuning: { ackTimeoutMs: 100 } });
    const b = await world.started("b-1");
    await a.send("b", "1");
    await eventually("its cursor is committed", async () => (await a.pending()).count === 0);
    const mend = await breakTable("cursors");
    expect((await a.send("b", "2")).outcome).toBe("stored");
    const status = await b.saw("listener_store_error");
    expect(status.error.code).toBe("store_failed");
    expect(status.message).toContain("broken");
    await mend();
    await eventually("its cursor is committed", async () => (await a.pending()).count === 0);
    await a.send("b", "3");
    await b.received.length(3);
    expect(b.texts).toEqual(["1", "2", "3"]);
  });

  it("that stored messages cannot be read, and takes them when they can", async () => {
    const [a, b] = await world.left("1");
    await a.send("b", "2");
    await world.query("ALTER TABLE hawser_peer_data.stored_messages RENAME COLUMN payload TO hidden");
    await b.record();
    await b.saw("listener_store_error");
    await world.query("ALTER TABLE hawser_peer_data.stored_messages RENAME COLUMN hidden TO payload");
    await b.received.length(2);
    expect(b.texts).toEqual(["1", "2"]);
  });

  it("of a stranger who was not let in", async () => {
    const b = await world.started("b-1");
    const [host, port] = b.localAddress.split(":") as [string, string];
    const socket = connect(Number(port), host);
    socket.on("error", () => undefined);
    await new Promise((resolve) => socket.once("connect", resolve));
    const address = `127.0.0.1:${socket.localPort}`;
    socket.write("GET / HTTP/1.1\r\n\r\n");
    expect(await b.saw("handshake_refused")).toMatchObject({ address, code: "protocol_violation" });
    socket.destroy();
  });

  it("of a gap where somebody deleted stored messages, and goes on behind it", async () => {
    const [a, b] = await world.left("1");
    for (const text of ["2", "3", "4", "5"]) await a.send("b", text);
    await world.query("DELETE FROM hawser_peer_data.stored_messages WHERE number IN (3, 4)");
    await b.record();
    await b.received.length(3);
    expect(b.texts).toEqual(["1", "2", "5"]);
    const [epoch] = await world.query<{ epoch: number }>("SELECT epoch FROM hawser_peer_data.peers WHERE name = 'a-1'");
    expect(await b.saw("gap")).toMatchObject({ peer: "a-1", first: 3, last: 4, epoch: epoch?.epoch });
    // And live.
    await eventually("live again", async () => (await a.send("b", "ping")).outcome === "delivered");
  });
});

describe("a peer whose name is lost", () => {
  it("hears it when it stores, ends by itself, and may run again", async () => {
    const [a, b] = await world.left("1");
    const closed = failure("name_lost", a.closed);
    await takeAway("a-1");
    const error = await failure("name_lost", a.send("b", "2"));
    expect(error.outcome).toBe("unknown");
    expect(kinds(a).filter((kind) => kind === "fenced" || kind === "name_lost")).toEqual(["fenced", "name_lost"]);
    expect((await a.saw("name_lost")).error.code).toBe("name_lost");
    await closed;
    expect(a.address).toBe("");
    await failure("not_running", a.send("b", "3"));
    await a.stop();
    await a.record();
    expect((await a.send("b", "4")).outcome).toBe("stored");
    await b.record();
    await b.received.length(2);
    expect(b.texts).toEqual(["1", "4"]);
  });

  it("hears it when it commits a cursor; what it handled is not acknowledged", async () => {
    const a = await world.started("a-1", { tuning: { ackTimeoutMs: 100 } });
    const b = await world.started("b-1");
    await a.send("b", "1");
    await eventually("its cursor is committed", async () => (await a.pending()).count === 0);
    await takeAway("b-1");
    expect((await a.send("b", "2")).outcome).toBe("stored");
    await b.saw("name_lost");
    await eventually("it has ended", () => b.address === "");
    const successor = await world.started("b-1");
    await successor.received.length(1);
    expect(successor.texts).toEqual(["2"]);
  });
});

it("hears with details why a peer ends, and standard output and error stay silent", async () => {
  const written = [vi.spyOn(process.stdout, "write"), vi.spyOn(process.stderr, "write")];
  const lines = new Log<{ level: string; details: object; message: string }>();
  const take =
    (level: string) =>
    (details: object, message: string): void =>
      lines.push({ level, details, message });
  const logger = { debug: take("debug"), info: take("info"), warn: take("warn"), error: take("error") };
  const a = await world.started("a-1", { logger });
  const b = await world.started("b-1");
  await a.send("b", "x");
  await b.stop();
  await world.query("SELECT FROM hawser.end_ownership('a-1', true)");
  await a.send("b", "y").catch(() => undefined);
  expect(await lines.find(({ level }) => level === "error")).toMatchObject({
    details: { peer: "a-1" },
    message: expect.stringContaining('"a-1"'),
  });
  for (const spy of written) {
    expect(spy.mock.calls).toEqual([]);
    spy.mockRestore();
  }
});
