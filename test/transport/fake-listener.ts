/**
 * A listener by hand: answers what no honest one would.
 */
import { createServer, type Socket } from "node:net";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { type Frame, FrameDecoder } from "../../src/jobs-and-peers/wire/index.js";
import { encode } from "../wire/coding.js";

/** Sends a Challenge to whoever connects; `answer` is given each frame of the dialler. */
export async function fakeListener(
  answer: (frame: Frame, socket: Socket) => void,
): Promise<AsyncDisposable & { readonly address: string }> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    const decoder = new FrameDecoder({ maxFrameBytes: 4096, preamble: Buffer.from(protocolConstants.preamble) });
    socket.write(
      encode({
        $case: "challenge",
        value: { nonce: new Uint8Array(32), minVersion: 1, maxVersion: 1, capabilities: [] },
      }),
    );
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      decoder.push(new Uint8Array(chunk));
      for (let frame = decoder.next(); frame !== undefined; frame = decoder.next()) answer(frame, socket);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  return {
    address: `127.0.0.1:${port}`,
    [Symbol.asyncDispose]: async () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}
