import { maxSuggestedLength } from "./grammar.js";
import type { SqlFunction } from "./sql-function.js";

/** Did you mean …: the same distance and the same choice as runtime/suggest.ts. */
export function suggestionFunction(): SqlFunction {
  return {
    name: "nats_option_suggestion",
    parameters: ["name text", "known text[]"],
    returns: "text",
    traits: "IMMUTABLE PARALLEL SAFE STRICT",
    comment:
      "The known name that a mistyped one probably meant: the one with the fewest changed, missing, added or swapped " +
      "characters, at most two fifths of its length; null if none is close.",
    body: `
DECLARE
  -- Only A to Z are lowered: what lies beyond, JavaScript lowers differently.
  mistyped CONSTANT text[] := string_to_array(
    translate(name, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz'), NULL);
  mistyped_length CONSTANT integer := char_length(name);
  candidate text;
  letters text[];
  letter_count integer;
  before_last integer[];
  last integer[];
  row_now integer[];
  steps integer;
  best text;
  best_distance integer;
BEGIN
  IF mistyped_length > ${maxSuggestedLength} THEN
    RETURN NULL;
  END IF;
  FOREACH candidate IN ARRAY known LOOP
    letters := string_to_array(candidate, NULL);
    letter_count := char_length(candidate);
    -- last[j + 1] is the distance from what was read of the mistyped name to the first j letters.
    before_last := NULL;
    last := ARRAY(SELECT generate_series(0, letter_count));
    FOR i IN 1 .. mistyped_length LOOP
      row_now := ARRAY[i];
      FOR j IN 1 .. letter_count LOOP
        steps := least(
          last[j + 1] + 1,
          row_now[j] + 1,
          last[j] + CASE WHEN mistyped[i] = letters[j] THEN 0 ELSE 1 END);
        IF i > 1 AND j > 1 AND mistyped[i] = letters[j - 1] AND mistyped[i - 1] = letters[j] THEN
          steps := least(steps, before_last[j - 1] + 1);
        END IF;
        row_now[j + 1] := steps;
      END LOOP;
      before_last := last;
      last := row_now;
    END LOOP;
    IF last[letter_count + 1] <= greatest(1, letter_count * 2 / 5)
      AND (best_distance IS NULL OR last[letter_count + 1] < best_distance)
    THEN
      best := candidate;
      best_distance := last[letter_count + 1];
    END IF;
  END LOOP;
  RETURN best;
END`,
  };
}
