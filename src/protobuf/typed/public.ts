/** Entry `hawser/protobuf`: the codec of typed messages, which the entry `hawser` loads when a schema of Protobuf is first used. */
export { decode, encode } from "./codec.js";
