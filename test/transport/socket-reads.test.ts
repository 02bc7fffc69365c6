/**
 * Reading sockets into one block: that Node lets us, and that each gets its own bytes, whole and in order.
 */
import { randomFillSync } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type ListenOptions, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { readSocket } from "../../src/jobs-and-peers/transport/socket-reads.js";
import { eventually } from "../support/eventually.js";
import { temporaryDirectory } from "../support/temporary.js";

/** A socket as it was connected or accepted, the one to use, and what has come: copies, and the memory it came in. */
interface End {
  readonly given: Socket;
  readonly socket: Socket;
  readonly come: Buffer[];
  readonly memory: Set<ArrayBufferLike>;
}

function endOf(given: Socket): End {
  const come: Buffer[] = [];
  const memory = new Set<ArrayBufferLike>();
  const socket = readSocket(given, (bytes) => {
    come.push(Buffer.from(bytes));
    memory.add(bytes.buffer);
  });
  socket.on("error", () => undefined);
  onTestFinished(() => void socket.destroy());
  return { given, socket, come, memory };
}

/** @param looksFirst takes an accepted socket when its first bytes have been read and put back */
async function pair(
  where: ListenOptions,
  looksFirst = false,
): Promise<{ server: Server; dialled: End; accepted: Promise<End> }> {
  const server = createServer();
  onTestFinished(() => void server.close());
  await once(server.listen(where), "listening");
  const accepted = once(server, "connection").then(async ([socket]: Socket[]) => {
    if (looksFirst) {
      const [chunk] = (await once(socket!, "data")) as [Buffer];
      socket!.pause();
      socket!.unshift(chunk);
    }
    return endOf(socket!);
  });
  const { port } = server.address() as AddressInfo;
  const socket = connect(where.path === undefined ? { port, host: "127.0.0.1" } : { path: where.path });
  await once(socket, "connect");
  return { server, dialled: endOf(socket), accepted };
}

const bytes = (count: number): Buffer => randomFillSync(Buffer.alloc(count));
const has = (end: End, sent: Buffer) =>
  eventually("all has come", () => Buffer.concat(end.come).length >= sent.length).then(() =>
    expect(Buffer.compare(Buffer.concat(end.come), sent)).toBe(0),
  );
const loopback = { port: 0, host: "127.0.0.1" };

describe("a socket", () => {
  it("reads into the shared block, and passes on its own bytes", async () => {
    const pairs = await Promise.all([1, 2, 3].map(() => pair(loopback)));
    const ends = await Promise.all(pairs.flatMap(({ dialled, accepted }) => [dialled, accepted]));
    const sent = ends.map(() => bytes(3_000_000));
    for (const [index, { socket }] of ends.entries()) socket.write(sent[index]!);
    for (const [index, end] of ends.entries()) await has(end, sent[index ^ 1]!);
    expect(new Set(ends.flatMap(({ memory }) => [...memory])).size).toBe(1);
  });

  it("passes on bytes that were read before, then later ones, and the end", async () => {
    const { dialled, accepted, server } = await pair(loopback, true);
    const sent = bytes(3_000_000);
    dialled.socket.end(sent);
    const end = await accepted;
    await Promise.all([end.socket, dialled.socket].map((each) => once(each, "close")));
    expect(Buffer.compare(Buffer.concat(end.come), sent)).toBe(0);
    // The server knows that it has gone.
    await new Promise((resolve) => server.close(resolve));
  });

  it("closes with the original socket, and vice versa", async () => {
    for (const which of ["given", "socket"] as const) {
      const { accepted, dialled } = await pair(loopback, true);
      dialled.socket.write("1");
      const end = await accepted;
      const closed = Promise.all([end.given, end.socket, dialled.socket].map((each) => once(each, "close")));
      end[which].destroy();
      await closed;
    }
  });

  it("does not read while it is paused", async () => {
    const { dialled, accepted } = await pair(loopback);
    const { socket, come } = await accepted;
    const closed = Promise.all([socket, dialled.socket].map((each) => once(each, "close")));
    socket.pause();
    const sent = bytes(20_000_000);
    dialled.socket.end(sent);
    // What is sent later over another connection is read before.
    const later = await pair(loopback);
    const other = await later.accepted;
    later.dialled.socket.end("later");
    await eventually("what was sent later has come", () => other.come.length > 0);
    expect(come).toEqual([]);
    expect(dialled.socket.writableLength).toBeGreaterThan(0);
    socket.resume();
    await closed;
    expect(Buffer.compare(Buffer.concat(come), sent)).toBe(0);
  });

  it("of another kind is read through data events", async () => {
    const { dialled, accepted } = await pair({ path: join(temporaryDirectory(), "socket") }, true);
    expect(dialled.socket).toBe(dialled.given);
    const sent = bytes(200_000);
    dialled.socket.write(sent);
    await has(await accepted, sent);
  });
});
