/** Messages of a shop, and what is said of those that are refused. */
import type pg from "pg";

/** A file with an order that has more fields. */
export const orderProto = (fields: string, more = ""): Record<string, string> => ({
  "acme/v1/orders.proto": `syntax = "proto3";
    package acme.v1;
    import "buf/validate/validate.proto";
    import "google/protobuf/timestamp.proto";
    import "hawser/v1/topic.proto";
    message OrderPlaced {
      option (hawser.v1.topic) = {topic: "orders" subject: "orders.{tenant}.placed" stream: true key: "order_id"};
      string tenant = 1 [(buf.validate.field).string.max_len = 20];
      string order_id = 2;
      ${fields}
    }
    message Pinged { option (hawser.v1.topic) = {topic: "pings" message_id: "number"}; int64 number = 1; }
    message Moved { option (hawser.v1.topic) = {subject: "{area}.{what}.moved"}; string area = 1; string what = 2; }
    message Shipped { option (hawser.v1.topic) = {subject: "shipped" stream: true message_id: "order_id"}; string order_id = 1; }
    message Ticked { option (hawser.v1.topic) = {subject: "ticks"}; optional bool late = 1; }
    ${more}`,
});

/** Resolves with the error of a query. */
export const refusal = (query: Promise<unknown>): Promise<string> =>
  query.then(
    () => "nothing was refused",
    ({ code, message, hint }: pg.DatabaseError) => `${code}: ${message}${hint === undefined ? "" : ` | ${hint}`}`,
  );
