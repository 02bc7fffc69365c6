DECLARE
  a CONSTANT text[] := string_to_array(p_one, '.');
  b CONSTANT text[] := string_to_array(p_other, '.');
BEGIN
  overlap := false;
  FOR at IN 1..least(cardinality(a), cardinality(b)) LOOP
    -- '>' stands for at least one word, and both have one here.
    overlap := '>' IN (a[at], b[at]);
    IF overlap OR (a[at] <> b[at] AND '*' NOT IN (a[at], b[at])) THEN
      RETURN;
    END IF;
  END LOOP;
  overlap := cardinality(a) = cardinality(b);
END
