/** Starts a dev stack, prints its description as one line of JSON, and stays until it is killed. */
import { startDevStack } from "../../../src/development/dev/index.js";

const stack = await startDevStack();
console.log(JSON.stringify({ directory: stack.directory, databaseUrl: stack.databaseUrl, natsUrl: stack.natsUrl }));
