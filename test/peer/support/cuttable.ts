/**
 * Peers whose connections can be cut: each publishes the address of a proxy in front of it.
 */
import { ownPort } from "../../support/own-port.js";
import type { PeerOptions } from "../../../src/peer/index.js";
import { TcpProxy } from "../../transport/tcp-proxy.js";
import type { PeerWorld, TestPeer } from "./world.js";

/** A peer and the way to it. */
export interface CuttablePeer extends AsyncDisposable {
  readonly peer: TestPeer;
  /** Resets the connections of all who have dialled it. */
  cut(): void;
}

/** Makes one; it is not running yet. */
export async function cuttablePeer(
  world: PeerWorld,
  name: string,
  options: Partial<PeerOptions> = {},
): Promise<CuttablePeer> {
  const port = await ownPort();
  const proxy = await TcpProxy.to(port);
  const peer = world.peer(name, { listen: `127.0.0.1:${port}`, advertise: proxy.address, ...options });
  return {
    peer,
    cut: () => proxy.cut(),
    [Symbol.asyncDispose]: async () => {
      await peer.stop({ timeoutMs: 2_000 });
      await proxy[Symbol.asyncDispose]();
    },
  };
}
