/**
 * Peers whose connections can be cut: each publishes the address of a proxy in front of it.
 */
import type { PeerOptions } from "../../../src/jobs-and-peers/peer/index.js";
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
  const proxy = await TcpProxy.to(() => portOf(peer.localAddress));
  const peer = world.peer(name, { advertise: proxy.address, ...options });
  return {
    peer,
    cut: () => proxy.cut(),
    [Symbol.asyncDispose]: async () => {
      await peer.stop({ timeoutMs: 2_000 });
      await proxy[Symbol.asyncDispose]();
    },
  };
}

/** Port of an address such as 127.0.0.1:4100. */
export const portOf = (address: string): number => Number(address.slice(address.lastIndexOf(":") + 1));
