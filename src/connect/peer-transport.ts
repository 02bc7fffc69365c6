/**
 * Calls between peers: each is a request to a listener of the service's topic.
 */
import type { DescMethod } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel as Idempotency } from "@bufbuild/protobuf/wkt";
import type { Transport } from "@connectrpc/connect";
import { rpcConstants } from "../../generated/ts/settings/connect.js";
import type { Answer, RequestOptions } from "../peer/index.js";
import { maxTimerMs } from "../runtime/index.js";
import type { HeaderPairs } from "./headers.js";
import { type Carrier, checkTransportOptions, createTransport, type TransportOptions } from "./transport.js";

/** How calls are made between peers. */
export interface PeerTransportOptions extends TransportOptions {
  /** The topic of the services, the same as where they are served. Default: the name of the service, `acme.v1.Warehouse`. */
  readonly topic?: string | undefined;
}

/** What a transport needs of a `Peer`. */
interface CallingPeer {
  request(topic: string, payload: Uint8Array, options: RequestOptions): Promise<Answer>;
}

/**
 * A transport for clients of Connect: `createClient(Warehouse, createPeerTransport(peer))`. It makes unary calls; each goes
 * to one listener of the topic, in turn.
 *
 * Calls fail with a `ConnectError`. Its `cause` is a `HawserError` where the peers, and not the service, were the reason:
 * `unavailable` if no listener of the topic can be reached or its connection is lost, `deadline_exceeded` after the time
 * limit, `resource_exhausted` if it is busy, and what else docs/rpc.md lists. A method whose `idempotency_level` says that it
 * may be called twice is called again, at another listener, when the connection is lost.
 *
 * @param peer runs when calls are made
 * @throws HawserError `invalid_argument`
 */
export function createPeerTransport(peer: CallingPeer, options: PeerTransportOptions = {}): Transport {
  checkTransportOptions(options, "a peer transport", ["topic"]);
  const { topic, ...common } = options;
  // Mostly those of the call before.
  let last: { readonly pairs: HeaderPairs; readonly method: DescMethod; readonly headers: HeaderPairs } | undefined;
  const headersOf = (pairs: HeaderPairs, method: DescMethod): HeaderPairs => {
    if (last?.pairs !== pairs || last.method !== method) {
      last = { pairs, method, headers: [...pairs, [rpcConstants.methodHeader, methodName(method)]] };
    }
    return last.headers;
  };
  const carrier: Carrier = {
    scheme: "peer",
    async call({ method, pairs, payload, timeoutMs, signal }) {
      const answer = await peer.request(topic ?? method.parent.typeName, payload, {
        headers: headersOf(pairs, method),
        timeoutMs: Math.min(Math.ceil(timeoutMs), maxTimerMs),
        signal,
        idempotent: method.idempotency !== Idempotency.IDEMPOTENCY_UNKNOWN,
      });
      return { payload: answer.payload, headers: [...answer.headers] };
    },
  };
  return createTransport(carrier, common);
}

/** As the header has it that names the method: `acme.v1.Warehouse.Reserve`. */
export function methodName({ parent, name }: DescMethod): string {
  return `${parent.typeName}.${name}`;
}
