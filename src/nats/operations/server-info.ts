/**
 * The columns of nats_get_server_info.
 */
import type { NatsConnection, ServerInfo as WireInfo } from "@nats-io/transport-node";
import { NatsError } from "../../errors/index.js";

/** The NATS server and the connection to it, as the server has told it last. */
export interface ServerInfo {
  readonly serverId: string;
  readonly serverName: string;
  readonly host: string;
  readonly port: number;
  readonly version: string;
  readonly authRequired: boolean;
  readonly tlsRequired: boolean;
  /** Bytes. */
  readonly maxPayload: bigint;
  readonly proto: number;
  readonly clientId: bigint;
  readonly go: string;
  readonly nonce: string | undefined;
  readonly connectUrls: readonly string[] | undefined;
  readonly clientIp: string | undefined;
  readonly headers: boolean;
  readonly lameDuckMode: boolean;
}

/** @throws NatsError nats_unavailable, if there is no connection any more */
export function serverInfo(connection: NatsConnection): ServerInfo {
  // Old and other servers leave things out, whatever the library's type says.
  const info: Partial<WireInfo> | undefined = connection.info;
  if (info === undefined || connection.isClosed()) {
    throw new NatsError("nats_unavailable", "There is no connection to NATS, so nothing is known of its server.");
  }
  return {
    serverId: info.server_id ?? "",
    serverName: info.server_name ?? "",
    host: info.host ?? "",
    port: info.port ?? 0,
    version: info.version ?? "",
    authRequired: info.auth_required ?? false,
    tlsRequired: info.tls_required ?? false,
    maxPayload: BigInt(info.max_payload ?? 0),
    proto: info.proto ?? 0,
    clientId: BigInt(info.client_id ?? 0),
    go: info.go ?? "",
    nonce: info.nonce,
    connectUrls: info.connect_urls,
    clientIp: info.client_ip,
    headers: info.headers ?? false,
    lameDuckMode: info.ldm ?? false,
  };
}
