/**
 * Another ordinary NATS client: it asks an SQL function for a limit, and publishes readings, which another SQL function
 * stores.
 */
import { connect, errors } from "@nats-io/transport-node";

const connection = await connect({ servers: process.env["NATS_URL"] ?? "" });

/** Asks until somebody answers: the function may have been registered a moment ago. */
async function ask(subject: string, question: string): Promise<string> {
  for (;;) {
    try {
      return (await connection.request(subject, question)).string();
    } catch (error) {
      if (!(error instanceof errors.RequestError && error.isNoResponders())) throw error;
    }
  }
}

console.log(`asks limits.temperature for "engine": ${await ask("limits.temperature", "engine")}`);
for (const reading of ["71.5", "84.0", "93.2"]) {
  connection.publish("sensors.engine", reading);
  console.log(`published "${reading}" to sensors.engine`);
}
await connection.drain();
