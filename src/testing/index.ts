/**
 * Entry `hawser/testing`: real servers for users' tests, and faults on demand.
 */
export { eventually } from "./eventually.js";
export { twice } from "./faults.js";
export { setup } from "./global-setup.js";
export type { TestProgram } from "./program.js";
export { type TestStack, type TestStackOptions, testStack } from "./test-stack.js";
