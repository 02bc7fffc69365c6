DECLARE
  v_quoted text := $function$the tag of the generator, $function$;
BEGIN
  noted := v_quoted || p_shop;
END
