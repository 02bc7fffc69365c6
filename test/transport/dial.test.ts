import { createServer } from "node:net";
import { describe, expect, it } from "vitest";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { lookupLoopback } from "../../src/jobs-and-peers/transport/dial.js";
import type { Frame } from "../../src/jobs-and-peers/wire/index.js";
import { ManualClock } from "../support/manual-clock.js";
import { elsewhere } from "./elsewhere.js";
import { fakeListener } from "./fake-listener.js";
import { connectPair, dialTest, Inbox, identity, TestListener } from "./pair.js";

const withCode = (code: string) => expect.objectContaining({ code });

describe("dialling", () => {
  it("rejects with the reason if nobody listens", async () => {
    const listener = await TestListener.start();
    const { address, port } = listener;
    await listener.close(true);
    const refused = expect.objectContaining({
      code: "connection_lost",
      message: expect.stringContaining("ECONNREFUSED"),
    });
    await expect(dialTest(address)).rejects.toThrow(refused);
    await expect(dialTest(`localhost:${port}`)).rejects.toThrow(refused);
  });

  it("rejects if the listener does not finish the handshake in time", async () => {
    const clock = new ManualClock();
    const hellos = new Inbox<Frame>();
    await using listener = await fakeListener((frame) => hellos.push(frame));
    const dialled = dialTest(listener.address, { clock });
    await hellos.next();
    clock.advance(protocolConstants.handshakeTimeoutMs);
    await expect(dialled).rejects.toThrow(withCode("handshake_timeout"));
  });

  it("rejects a foreign protocol", async () => {
    const server = createServer((socket) => void socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { port: number };
    await expect(dialTest(`127.0.0.1:${port}`)).rejects.toThrow(withCode("protocol_violation"));
    server.close();
  });

  it("is aborted by its signal, before and during the attempt", async () => {
    await using listener = await fakeListener(() => {});
    const reason = new Error("enough");
    const aborted = expect.objectContaining({ code: "aborted", cause: reason });
    await expect(dialTest(listener.address, { signal: AbortSignal.abort(reason) })).rejects.toThrow(aborted);
    const attempt = new AbortController();
    const dialled = dialTest(listener.address, { signal: attempt.signal });
    attempt.abort(reason);
    await expect(dialled).rejects.toThrow(aborted);
  });

  it("leaves an established connection alone when its signal is aborted later", async () => {
    const attempt = new AbortController();
    await using pair = await connectPair({ dial: { signal: attempt.signal } });
    attempt.abort();
    pair.sender.connection.writeGoLive(identity.epoch);
    expect(await pair.accepted.events.next()).toEqual({ kind: "goLive" });
  });

  it("leaves loopback only if the network is trusted, and otherwise fails before anything is sent", async () => {
    const refused = withCode("plaintext_refused");
    for (const address of ["192.0.2.1:1", "[2001:db8::1]:1", "[::ffff:192.0.2.1]:1"]) {
      await expect(dialTest(address)).rejects.toThrow(refused);
    }
  });

  it("refuses an empty secret and a malformed address", async () => {
    const invalid = withCode("invalid_argument");
    await expect(dialTest("127.0.0.1:1", { secret: new Uint8Array(0) })).rejects.toThrow(invalid);
    await expect(dialTest("127.0.0.1")).rejects.toThrow(invalid);
  });

  it.skipIf(elsewhere === undefined)("works beyond loopback where the network is trusted", async () => {
    await using listener = await TestListener.start({ address: `${elsewhere}:0`, allowPlaintext: true });
    await expect(dialTest(listener.address)).rejects.toThrow(withCode("plaintext_refused"));
    (await dialTest(listener.address, { allowPlaintext: true })).connection.destroy();
  });

  it.each([{}, { all: true }])(
    "resolves host names, and refuses those that resolve to other machines (%j)",
    async (options) => {
      const found = (host: string): Promise<Error | null> =>
        new Promise((resolve) => lookupLoopback(host, options, (error) => resolve(error)));
      // An address is looked up to itself.
      expect(await found("192.0.2.1")).toMatchObject({ code: "plaintext_refused" });
      expect(await found("2001:db8::1")).toMatchObject({ code: "plaintext_refused" });
      expect(await found("127.0.0.1")).toBeNull();
      expect(await found("localhost")).toBeNull();
      expect(await found("no-such-host.invalid")).toMatchObject({ syscall: "getaddrinfo" });
    },
  );
});
