/**
 * Runs the SQL functions that NATS reaches.
 */
export { Bridge, type BridgeOptions, type BridgeStats } from "./bridge.js";
