/**
 * Names of OpenTelemetry's semantic conventions that Hawser uses: https://opentelemetry.io/docs/specs/semconv/messaging/
 * and …/rpc/. Those of messaging and RPC are in development, so a later version may rename them.
 */

/** Version of the conventions. */
export const schemaUrl = "https://opentelemetry.io/schemas/1.37.0";

export const names = {
  system: "messaging.system",
  operationType: "messaging.operation.type",
  operationName: "messaging.operation.name",
  destination: "messaging.destination.name",
  messageId: "messaging.message.id",
  bodySize: "messaging.message.body.size",
  batchCount: "messaging.batch.message_count",
  group: "messaging.consumer.group.name",
  clientId: "messaging.client.id",
  rpcSystem: "rpc.system",
  rpcService: "rpc.service",
  rpcMethod: "rpc.method",
  errorType: "error.type",
  // The conventions have no names for these.
  attempt: "hawser.attempt",
  outcome: "hawser.outcome",
  functionName: "hawser.function",
} as const;

/** Value of `rpc.system` for Connect. */
export const connectRpc = "connect_rpc";
