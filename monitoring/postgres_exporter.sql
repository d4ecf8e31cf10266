-- Prints postgres_exporter.yaml, from the extension's own list of metrics:
--   psql -XAtq -d shop -f postgres_exporter.sql > postgres_exporter.yaml
WITH metric AS (
  SELECT f.*, row_number() OVER () AS place,
    'eros_' || f.subject AS namespace, replace(f.name, 'eros_' || f.subject || '_', '') AS col
  FROM eros.metric_family f
), label AS (
  SELECT DISTINCT m.subject, l.name, l.place
  FROM metric m, unnest('{datname}'::text[] || m.labels) WITH ORDINALITY l(name, place)
)
SELECT '# For prometheus-postgres-exporter: --extend.query-path. Printed by postgres_exporter.sql; see README.md.'
UNION ALL (
SELECT format(E'\n%s:\n  query: |\n    SELECT %s\n    FROM eros.metrics\n    WHERE subject = ''%s''\n    GROUP BY labels - ''le''\n%s  metrics:\n%s',
    m.namespace,
    (SELECT string_agg(format('(labels - ''le'') ->> ''%s'' AS %I', l.name, l.name), ', ' ORDER BY l.place)
     FROM label l WHERE l.subject = m.subject) || E',\n      ' ||
    string_agg(
      CASE m.type WHEN 'histogram' THEN format(
        'array_agg((labels ->> ''le'')::double precision ORDER BY (labels ->> ''le'')::double precision)'
        || E'\n        FILTER (WHERE name = ''%1$s_bucket'' AND labels ->> ''le'' <> ''+Inf'') AS %2$s,'
        || E'\n      array_agg(value::bigint ORDER BY (labels ->> ''le'')::double precision)'
        || E'\n        FILTER (WHERE name = ''%1$s_bucket'' AND labels ->> ''le'' <> ''+Inf'') AS %2$s_bucket,'
        || E'\n      max(value) FILTER (WHERE name = ''%1$s_sum'') AS %2$s_sum,'
        || E'\n      max(value::bigint) FILTER (WHERE name = ''%1$s_count'') AS %2$s_count', m.name, m.col)
      ELSE format('max(value) FILTER (WHERE name = ''%s'') AS %I', m.name, m.col) END,
      E',\n      ' ORDER BY m.place),
    m.subject,
    CASE WHEN m.subject LIKE 'prediction%' THEN E'  cache_seconds: 300\n' ELSE '' END, -- it reads the history
    (SELECT string_agg(format(E'    - %s:\n        usage: LABEL\n        description: the %1$s', l.name), E'\n' ORDER BY l.place)
     FROM label l WHERE l.subject = m.subject) || E'\n' ||
    string_agg(format(E'    - %s:\n        usage: %s\n        description: ''%s''',
                      m.col, upper(m.type), replace(m.help, '''', '''''')), E'\n' ORDER BY m.place))
FROM metric m
GROUP BY m.namespace, m.subject
ORDER BY min(m.place));
