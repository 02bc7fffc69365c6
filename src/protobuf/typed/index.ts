/**
 * Typed messages: schemas of users' protos as protoc-gen-es generates them. The option `hawser.v1.topic` sets the
 * destination of a message (topic.ts), the options of `buf.validate` the rules of its values (rules.ts). See README.md.
 */
export { idOfMessage, keyOfMessage, mustFitId, mustNotBeReserved, subjectOf } from "./address.js";
export { type BrokenRule, brokenRule, requirementOf } from "./check.js";
export {
  decode,
  decodeUnchecked,
  encode,
  encodeUnchecked,
  violationText,
} from "./codec.js";
export { Descriptors, payloadLine, type ShownForm, shownPayload } from "./descriptors.js";
export { formatPatterns } from "./formats.js";
export { patternProblem } from "./pattern.js";
export {
  allRulesOf,
  type FieldRules,
  type Rule,
  type RuleValue,
  rulesOf,
  type ValueRules,
} from "./rules.js";
export { hasTopic, type TopicOfSchema, topicOf } from "./topic.js";
