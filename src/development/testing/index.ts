/**
 * Entry `hawser/testing`: real servers for users' tests, faults on demand, and messages for unit tests.
 */
export { type TestMessageOptions, testMessage } from "../../jobs-and-peers/peer/testing.js";
export { eventually } from "./eventually.js";
export { twice } from "./faults.js";
export { setup } from "./global-setup.js";
export type { TestProgram } from "./program.js";
export { type TestStack, type TestStackOptions, testStack } from "./test-stack.js";
