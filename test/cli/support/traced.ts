/**
 * Messages with a trace, and an SQL function that takes them.
 */
import { eventually } from "../../support/eventually.js";
import { onServer, rowsOf } from "../../support/on-server.js";

/** The trace of the messages, and the span that they come from. */
export const traceId = "0af7651916cd43dd8448eb211c80319c";
export const parentSpanId = "b7ad6b7169203331";

/** Subscribes a function to the subject. */
export async function subscribeFunction(databaseUrl: string, subject: string): Promise<void> {
  await onServer(
    databaseUrl,
    "CREATE TABLE taken (payload bytea)",
    "CREATE FUNCTION take(payload bytea) RETURNS void LANGUAGE sql AS 'INSERT INTO taken VALUES ($1)'",
    `SELECT nats_subscribe('${subject}', 'take')`,
  );
}

/** Publishes messages of the trace until the function has run: before it is subscribed, they reach nobody. */
export async function publishTraced(databaseUrl: string, subject: string): Promise<void> {
  await onServer(databaseUrl, "TRUNCATE taken");
  const headers = JSON.stringify({ traceparent: `00-${traceId}-${parentSpanId}-01` });
  await eventually("the function has run", async () => {
    await onServer(databaseUrl, `SELECT nats_publish_text('${subject}', 'x', headers => '${headers}')`);
    return (await rowsOf(databaseUrl, "SELECT FROM taken")).length > 0;
  });
}
