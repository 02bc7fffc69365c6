import { startService } from "./service.js";

const service = await startService();
console.log("the service runs; Ctrl-C stops it");
process.once("SIGINT", () => service.stop());
process.once("SIGTERM", () => service.stop());
