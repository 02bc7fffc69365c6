DECLARE
  v_quoted text := $function$it has the tag of the generator$function$;
BEGIN
  number := 1;
  reference := p_total;
END
