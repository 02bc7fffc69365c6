/** Transport over peers: a call is a request to a listener of the service's topic. */
import type { DescMethod } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel as Idempotency } from "@bufbuild/protobuf/wkt";
import type { Transport } from "@connectrpc/connect";
import { rpcConstants } from "../../../generated/ts/settings/connect.js";
import { checkOptionNames, namesOf } from "../../foundation/errors/index.js";
import { maxTimerMs } from "../../foundation/runtime/index.js";
import type { AnyPeer } from "../../jobs-and-peers/peer/index.js";
import type { HeaderPairs } from "./headers.js";
import { type Carrier, createTransport, type TransportOptions, transportOptions } from "./transport.js";

/** Options of {@link createPeerTransport}. */
export interface PeerTransportOptions extends TransportOptions {
  /**
   * Topic of the services, the same as where they are served. Default: the name of the service, such as
   * `acme.v1.Warehouse`.
   */
  readonly topic?: string | undefined;
}

const optionNames = namesOf<PeerTransportOptions>({ topic: true, ...transportOptions });

/**
 * Creates a transport for Connect clients: `createClient(Warehouse, createPeerTransport(peer))`. It supports unary
 * calls. Each call goes to one listener of the topic; listeners take turns.
 *
 * Failed calls reject with a `ConnectError`. If the error comes from the peers and not from the service, its
 * `cause` is a `HawserError`: `unavailable` if no listener of the topic can be reached or the connection is lost,
 * `deadline_exceeded` after the time limit, `resource_exhausted` if the listener is busy; docs/rpc.md lists all. If the
 * connection is lost, a method whose `idempotency_level` permits repeated calls is called again on another listener.
 *
 * @param peer must be running when calls are made
 * @throws HawserError `invalid_argument`
 */
export function createPeerTransport(peer: Pick<AnyPeer, "request">, options: PeerTransportOptions = {}): Transport {
  checkOptionNames(options, "a peer transport", optionNames);
  const { topic, ...common } = options;
  // Headers of the last call, which are reused: consecutive calls mostly have the same headers and method.
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

/** Method name in the header of a call, such as `acme.v1.Warehouse.Reserve`. */
export function methodName({ parent, name }: DescMethod): string {
  return `${parent.typeName}.${name}`;
}
