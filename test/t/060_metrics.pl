# Prometheus and the exporters of Debian collect the metrics of a server, the dashboard's queries give
# figures, and the alerts fire when something is broken.

use strict;
use warnings;

use ErosTest;
use HTTP::Tiny;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my @programs = qw(prometheus promtool prometheus-postgres-exporter prometheus-sql-exporter prometheus-node-exporter);
my @missing = grep { my $name = $_; !grep { -x "$_/$name" } split /:/, $ENV{PATH} } @programs;
plan skip_all => "not installed: @missing" if @missing;

my $root = "$FindBin::RealBin/../..";
my $dir = PostgreSQL::Test::Utils::tempdir;
my %port = map { $_ => PostgreSQL::Test::Cluster::get_free_port() } qw(prometheus postgres sql node);
my $http = HTTP::Tiny->new(timeout => $PostgreSQL::Test::Utils::timeout_default);
my $json = JSON::PP->new->utf8->canonical;
my %running;

# Runs a command; a test that it succeeds.  Returns what it printed.
sub runs
{
	my ($name, $command, $input) = @_;
	my $out = '';

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $ok = IPC::Run::run($command, '<', \($input // ''), '>', \$out, '2>&1');
	ok($ok, $name) or diag($out);
	return $out;
}

# Starts a program in the background, to be stopped at the end.
sub start_program
{
	my ($name, $environment, @command) = @_;
	my $log = "$dir/$name.log";

	local %ENV = (%ENV, %$environment);
	$running{$name} = IPC::Run::start(\@command, '<', \undef, '>', $log, '2>', "$log.err");
	return;
}

# Stops one of them.
sub stop_program
{
	my ($name) = @_;
	my $program = delete $running{$name} or return;

	$program->kill_kill(grace => 5);
	return;
}

END
{
	my $status = $?;

	stop_program($_) for keys %running;
	$? = $status;
}

# Writes a file.
sub write_file
{
	my ($path, $text) = @_;

	open my $file, '>', $path or die "$path: $!";
	print $file $text;
	close $file;
	return;
}

# What an instant query to Prometheus gives: a list of { metric => labels, value => [ time, value ] }.
sub query
{
	my ($expr) = @_;
	my $answer = $http->post_form("http://127.0.0.1:$port{prometheus}/api/v1/query", { query => $expr });

	# not there yet, or not ready yet
	return [] if $answer->{status} == 599 || $answer->{status} == 503;
	my $data = eval { $json->decode($answer->{content}) } // {};
	die "$expr: $answer->{content}" if ($data->{status} // '') ne 'success';
	return $data->{data}{result};
}

# Calls a function until it returns something true: on a busy machine a scrape may fail.
sub eventually
{
	my ($condition) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;

	while (time < $end)
	{
		my $result = $condition->();
		return $result if $result;
		usleep(250_000);
	}
	return;
}

# Which of some alerts have fired at some time since Prometheus was started.
sub fired
{
	my ($names, $labels) = @_;

	return [ sort map { $_->{metric}{alertname} }
		@{ query(qq{group by (alertname) (count_over_time(ALERTS{alertname=~"$names",alertstate="firing",@{[ $labels // '' ]}}[1h]))}) } ];
}

# A test: alerts fire when something is broken, and never did before.  Between two looks it may be
# broken again.  Labels, when given, say which of the alerts of the name is meant.
sub breaks
{
	my ($alerts, $break, $again, $labels) = @_;
	my $names = join '|', @$alerts;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_deeply(fired($names, $labels), [], "there was no @$alerts before");
	$break->();
	ok( eventually(
			sub {
				$again->() if $again;
				return "@{ fired($names, $labels) }" eq "@{[ sort @$alerts ]}";
			}),
		"@$alerts")
	  or diag($json->pretty->encode(query('ALERTS')));
	return;
}

#
# The files
#

my $rules = slurp_file("$root/monitoring/eros.rules.yml");
my $unit_tests = slurp_file("$root/monitoring/eros.rules.test.yml");
my $operations = slurp_file("$root/docs/operations.md");
my $reference = slurp_file("$root/docs/reference.md");
my $dashboard = $json->decode(slurp_file("$root/monitoring/grafana-dashboard.json"));
my @alerts = $rules =~ /- alert: (\w+)/g;

runs('promtool check rules', [ 'promtool', 'check', 'rules', "$root/monitoring/eros.rules.yml" ]);
runs('promtool check config', [ 'promtool', 'check', 'config', "$root/monitoring/prometheus.yml" ]);
runs('promtool test rules', [ 'promtool', 'test', 'rules', "$root/monitoring/eros.rules.test.yml" ]);
is_deeply(
	[ grep { $unit_tests !~ /alertname: $_\n *exp_alerts:\n *- exp_labels:\n/ } @alerts ],
	[], 'each alert has a unit test in which it fires');
is_deeply([ grep { $unit_tests !~ /alertname: $_\n *exp_alerts: \[\]/ } @alerts ],
	[], 'and in which it does not');

my %anchor;
for my $heading ($operations =~ /^#+ +(.+?) *$/mg)
{
	$anchor{ lc($heading =~ s/[^\w\- ]//gr) =~ tr/ /-/r } = 1;
}
is_deeply([ grep { !$anchor{ lc $_ } } @alerts ], [], 'each alert has its section in docs/operations.md');
is_deeply(
	[ grep { !$anchor{$_} } $rules =~ m{runbook_url: docs/operations\.md#([\w-]+)$}mg ],
	[], 'to which its run-book link leads');
is(scalar(() = $rules =~ /runbook_url:/g), scalar @alerts, 'each alert has one');

#
# The dashboard
#

my @panels = grep { $_->{type} ne 'row' } @{ $dashboard->{panels} };
my %ids = map { $_->{id} => 1 } @{ $dashboard->{panels} };
my %variables = map { $_->{name} => $_ } @{ $dashboard->{templating}{list} };
cmp_ok($dashboard->{schemaVersion}, '>=', 36, 'the dashboard has a schema of Grafana 9 or later');
is($dashboard->{uid}, 'eros', 'and a uid that stays');
is(scalar keys %ids, scalar @{ $dashboard->{panels} }, 'its panels have ids of their own');
is($variables{datasource}{type}, 'datasource', 'the data source is a variable');
is($variables{datasource}{query}, 'prometheus', 'for a Prometheus');
is_deeply([ grep { $_->{datasource}{uid} ne '${datasource}' } @panels, map { @{ $_->{targets} } } @panels ],
	[], 'which every panel and every query uses');
is_deeply([ map { $_->{title} } grep { !@{ $_->{targets} } || !$_->{description} || !$_->{fieldConfig}{defaults}{unit} } @panels ],
	[], 'every panel has queries, a description and a unit');
is_deeply([ map { $_->{title} } grep { $_->{gridPos}{x} + $_->{gridPos}{w} > 24 } @panels ], [], 'every panel is within the width');
my %taken;
for my $panel (@{ $dashboard->{panels} })
{
	my $at = $panel->{gridPos};
	for my $x ($at->{x} .. $at->{x} + $at->{w} - 1)
	{
		$taken{"$x,$_"}++ for $at->{y} .. $at->{y} + $at->{h} - 1;
	}
}
is_deeply([ grep { $taken{$_} > 1 } keys %taken ], [], 'and no two overlap');

#
# A server with something to be measured
#

my $node = eros_node(
	'main', q{
	eros.tracker_memory = '256kB'
	eros.worker_idle_timeout = '1h'
	eros.quantum = '20ms'
	eros.retry_delay = '1ms'
	eros.maintenance_interval = '1s'
	eros.max_workers = 1
	eros.halt_timeout = '1s'
	});
$node->safe_psql('postgres', 'CREATE DATABASE shop');
create_eros($node, 'shop');
$node->safe_psql('postgres', 'CREATE DATABASE blog');
create_eros($node, 'blog');
$node->safe_psql(
	'shop', q{
	CREATE ROLE prometheus LOGIN IN ROLE pg_monitor;
	CREATE TABLE mode AS SELECT 'quick' AS mode;
	CREATE FUNCTION matches(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
	LANGUAGE plpgsql SET search_path = public AS $$
	DECLARE
		mode text := (SELECT m.mode FROM mode m);
		n numeric := repeat('7', 60000)::numeric;
		halted timestamptz;
	BEGIN
		IF mode = 'fail' THEN
			RAISE 'broken on purpose';
		END IF;
		-- many milliseconds in which the server does not look for interrupts
		IF mode = 'gulp' THEN
			n := n*n + n*n + n*n + n*n + n*n + n*n + n*n + n*n + n*n + n*n + n*n + n*n + n*n + n*n + n*n + n*n;
		END IF;
		-- slow: yields to a halt at once; late: after a second; catch: never
		WHILE mode IN ('slow', 'late', 'catch') LOOP
			BEGIN
				PERFORM pg_sleep(0.1);
				EXIT WHEN mode = 'catch' AND (SELECT m.mode FROM mode m) <> 'catch';
				IF clock_timestamp() > halted + interval '1 second' THEN
					RAISE 'halted late';
				END IF;
			EXCEPTION WHEN query_canceled THEN
				IF mode = 'slow' THEN
					RAISE;
				ELSIF mode = 'late' THEN
					halted := coalesce(halted, clock_timestamp());
				END IF;
			END;
		END LOOP;
		RETURN QUERY SELECT u, to_jsonb(u) FROM unnest(user_ids) u;
	END $$;
	CREATE FUNCTION feed(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
	LANGUAGE sql AS $$ SELECT u, to_jsonb(u) FROM unnest(user_ids) u $$;
	UPDATE eros.phase SET cpu_percent = 95,
		idle_after = CASE phase WHEN 1 THEN interval '1 minute' ELSE idle_after END;
	SELECT eros.add_handler('matches', 'matches', phase => 1, ttl => '1 hour', max_attempts => 1, timeout => '1 hour');
	SELECT eros.add_handler(E'fe"ed\\\\', 'feed', phase => 2);});

# Has the handler 'matches' do something else from its next call on.
sub mode
{
	my ($mode) = @_;

	$node->safe_psql('shop', "UPDATE mode SET mode = '$mode'");
	return;
}

# Has users become idle.
sub leave
{
	my ($first, $last) = @_;

	$node->safe_psql(
		'shop', qq{
		SELECT count(eros_touch(u)) FROM generate_series($first, $last) u;
		SELECT eros.advance_clock('2 minutes')});
	return;
}

# results that are stored and not read, and expire
leave(1, 50);
polls_to($node, 'shop', q{SELECT count(*) FROM eros.get_many('matches', ARRAY(SELECT generate_series(1::bigint, 50)))},
	'users get their results', 50);
$node->safe_psql('shop', q{SELECT eros.advance_clock('1 day')});
polls_to($node, 'shop', q{SELECT results_expired >= 50 FROM eros.status_handler WHERE handler = 'matches'}, 'results expire');

# a halt; the call may be for the first users, whose results are made anew
mode('slow');
ok(eventually(sub {
		leave(1, 110);
		$node->poll_query_until('shop', computing());
		return value($node, 'shop', 'SELECT halts > 0 FROM eros.status_halt') eq 't';
	}),
	'touches halt a call');
mode('quick');
$node->safe_psql('shop', 'SELECT count(eros_touch(u)) FROM generate_series(1, 110) u');
polls_to($node, 'shop', 'SELECT jobs_pending FROM eros.status', 'and nothing is left to do for users who are back', 0);

my $text = $node->safe_psql('shop', 'SELECT eros.metrics_text()') . "\n";
is(runs('promtool check metrics of eros.metrics_text()', [ 'promtool', 'check', 'metrics' ], $text), '', 'finds nothing to say');

is($node->safe_psql('shop', qq{\\i $root/monitoring/postgres_exporter.sql}) . "\n",
	slurp_file("$root/monitoring/postgres_exporter.yaml"),
	'monitoring/postgres_exporter.yaml is what postgres_exporter.sql prints');
my %labels = map { $_ => 1 } slurp_file("$root/monitoring/sql_exporter.yml") =~ /labels: \[(.*?)\]/s ? split(/,\s*/, $1) : ();
is_deeply(
	[ grep { !$labels{$_} } split /\n/, $node->safe_psql('shop', q{
		SELECT DISTINCT jsonb_object_keys(labels) FROM eros.metrics UNION SELECT unnest(labels) FROM eros.metric_family}) ],
	[], 'monitoring/sql_exporter.yml knows all labels');
my @families = split /\n/, $node->safe_psql('shop', q{
	SELECT format('| `%s` | %s | %s | %s |', name, type, array_to_string(labels, ', '), help) FROM eros.metric_family});
is_deeply([ grep { index($reference, "\n$_\n") < 0 } @families ], [], 'docs/reference.md has all metrics');
is(scalar(() = $reference =~ /^\| `eros_[a-z_]+` \| (?:counter|gauge|histogram) /mg), scalar @families, 'and no others');

# what the rules and the dashboard ask for is there
my %family = map { $_ => 1 } map { /`(\w+)`/ } @families;
my $asked = join "\n", $rules, map { $_->{expr} } map { @{ $_->{targets} } } @panels;
is_deeply(
	[ grep { !$family{ s/_(?:bucket|sum|count)$//r } } grep { !/^eros_rules/ } $asked =~ /\b(eros_[a-z_]+)\b/g ],
	[], 'rules and dashboard ask for metrics that there are');

#
# Each problem has an alert, of its severity
#

my %severity = value($node, 'shop', q{SELECT p.prosrc FROM pg_proc p WHERE p.oid = 'eros.problems'::regproc}) =~
  /SELECT \d+, '(\w+)', (?:CASE WHEN .*? THEN 'warning' ELSE )?'(critical|warning)'/g;
my ($others) = $rules =~ /eros_problem_rows\{problem!~"([\w|]+)"/;
my %own = map { $_ => 1 } split /\|/, $others;
my %alert_of = (
	launcher_down => 'LauncherDown', scheduler_down => 'SchedulerDown', touches_lost => 'TouchesLost',
	users_spilled => 'TrackerFull', tracker_filling => 'TrackerFull', jobs_failed => 'JobsFailed',
	handlers_broken => 'HandlerBroken', halts_forced => 'HaltForced', halts_slow => 'HaltSlow',
	queue_late => 'QueueTooOld', cache_full => 'CacheFull', results_unread => 'ResultsUnread', handler_failing => 'HandlerFailing',
	queue_stalled => 'QueueStalled');
my %inherited = map { map { $_ => 1 } split /\|/ } $rules =~ /eros_problem_rows\{problem=~?"([\w|]+)"/g;
cmp_ok(scalar keys %severity, '>', 25, 'eros.problems() tells its keys');
is_deeply([ grep { !$severity{$_} } keys %own ], [], 'the rules know no problem that there is not');
is_deeply([ grep { !$alert_of{$_} && !$inherited{$_} } keys %own ], [], 'each problem that ErosProblem leaves out has an alert of its own');
is_deeply(
	[ grep { $own{$_} && !$inherited{$_} && $rules !~ /alert: Eros$alert_of{$_}\n(?:(?!- alert).*\n)*? *severity: $severity{$_}\n/ } sort keys %severity ],
	[], 'of the same severity');

#
# Prometheus and the exporters; intervals and windows are shorter
#

my $config = slurp_file("$root/monitoring/prometheus.yml");
$config =~ s/localhost:9187/127.0.0.1:$port{postgres}/;
$config =~ s/localhost:9237/127.0.0.1:$port{sql}/;
$config =~ s/localhost:9100/127.0.0.1:$port{node}/;
$config =~ s/15s/1s/g;
# a scrape must not last longer than the interval; this exporter asks the server at that moment
$config =~ s/(job_name: postgres_exporter\n)/$1    scrape_interval: 15s\n    scrape_timeout: 15s\n/;
my $quick_rules = $rules =~ s/for: \w+$/for: 3s/mgr =~ s/(?<=alert: ErosMetricsMissing\n)(.*?for: )3s/${1}5m/sr =~ s/\[(?:15m|30m|1h)\]/[20s]/gr;
my $sql_config = slurp_file("$root/monitoring/sql_exporter.yml") =~ s/interval: (?:15|300)s/interval: 1s/gr;
mkdir "$dir/textfile";
write_file("$dir/prometheus.yml", $config);
write_file("$dir/eros.rules.yml", $quick_rules);
write_file("$dir/sql_exporter.yml", $sql_config);
write_file("$dir/textfile/eros.prom", $text);

start_program('postgres_exporter',
	{ DATA_SOURCE_NAME => 'user=prometheus dbname=shop host=' . $node->host . ' port=' . $node->port },
	'prometheus-postgres-exporter', "--web.listen-address=127.0.0.1:$port{postgres}",
	"--extend.query-path=$root/monitoring/postgres_exporter.yaml",
	'--auto-discover-databases', '--include-databases=shop,blog', '--disable-default-metrics', '--disable-settings-metrics');
start_program('sql_exporter', { PGHOST => $node->host, PGPORT => $node->port },
	'prometheus-sql-exporter', "-web.listen-address=127.0.0.1:$port{sql}", "-config.file=$dir/sql_exporter.yml");
start_program('node_exporter', {},
	'prometheus-node-exporter', "--web.listen-address=127.0.0.1:$port{node}", '--collector.disable-defaults',
	'--collector.textfile', "--collector.textfile.directory=$dir/textfile");
start_program('prometheus', {},
	'prometheus', "--config.file=$dir/prometheus.yml", "--storage.tsdb.path=$dir/tsdb",
	"--web.listen-address=127.0.0.1:$port{prometheus}", '--log.level=warn');

# The samples of one job as Prometheus has them, without the labels that exporters add.
sub samples
{
	my ($job) = @_;
	my %samples;

	for my $sample (@{ query(qq({job="$job",datname="shop",__name__=~"eros_.+"})) })
	{
		my %labels = %{ $sample->{metric} };

		next if $sample->{value}[1] eq 'NaN'; # what the postgres exporter makes of NULL
		delete @labels{qw(job instance server driver host database user sql_job)};
		$samples{ $json->encode(\%labels) } = $sample->{value}[1];
	}
	return \%samples;
}

# The samples that there are, in the same form.
sub there
{
	my %there;

	for my $sample (@{ $json->decode($node->safe_psql('shop', q{
		SELECT jsonb_agg(jsonb_build_object('labels', labels || jsonb_build_object('__name__', name), 'value', value)) FROM eros.metrics})) })
	{
		my $labels = $sample->{labels};

		delete $labels->{$_} for grep { $labels->{$_} eq '' } keys %$labels; # the same to Prometheus
		$there{ $json->encode($labels) } = $sample->{value};
	}
	return \%there;
}

# Tests that Prometheus comes to have all samples of a job as they are; returns them.
sub has_all_samples
{
	my ($job) = @_;
	my ($samples, $there, @samples, @there);

	# predictions are left out, of which the postgres_exporter may have older ones
	eventually(sub {
		write_file("$dir/textfile/eros.prom", $node->safe_psql('shop', 'SELECT eros.metrics_text()') . "\n") if $job eq 'node_exporter';
		($samples, $there) = (samples($job), there());
		@samples = map { /eros_problem_rows/ ? "$_ $samples->{$_}" : $_ } grep { !/eros_prediction_/ } sort keys %$samples;
		@there = map { /eros_problem_rows/ ? "$_ $there->{$_}" : $_ } grep { !/eros_prediction_/ } sort keys %$there;
		return "@samples" eq "@there";
	});
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_deeply(\@samples, \@there, "Prometheus has every sample of the $job, with its labels, and the problems as they are");
	return $samples;
}

for my $job (qw(postgres_exporter sql_exporter node_exporter))
{
	is(has_all_samples($job)->{'{"__name__":"eros_handler_results_expired_total","datname":"shop","handler":"matches","phase":"1"}'},
		50, 'and their values');
}
ok(eventually(sub { scalar @{ query('eros_server_launcher_up{job="postgres_exporter",datname="blog"} == 1') } }),
	'and from another database of the server');
my $exported = join '', map { "$_\n" } grep { /^(?:# \w+ )?eros_/ } split /\n/,
  $http->get("http://127.0.0.1:$port{postgres}/metrics")->{content};
is(runs('promtool check metrics of the postgres_exporter', [ 'promtool', 'check', 'metrics' ], $exported),
	'', 'finds nothing to say');
my %typed = map { $_ => 1 } $exported =~ /^# TYPE (\w+ \w+)$/mg;
is_deeply(
	[ sort keys %typed ],
	[ sort grep { !/^eros_problem_rows / } map { /`(\w+)` \| (\w+)/ ? "$1 $2" : () } @families ],
	'it has all metrics with their types');

ok(eventually(sub { value($node, 'shop', q{SELECT scraped_at > eros.now() - interval '1 minute' FROM eros.monitor_info()}) eq 't' }),
	'the server knows that it is watched');

#
# The alerts fire
#

is_deeply(fired('.+'), [], 'no alert fires while all is well');

# jobs that fail
breaks([ 'ErosJobsFailed', 'ErosHandlerFailing' ], sub { mode('fail'); leave(201, 210); });
mode('quick');
$node->safe_psql('shop', q{SELECT eros.retry('matches')});

# a function that is gone
breaks([ 'ErosHandlerBroken' ],
	sub { $node->safe_psql('shop', 'ALTER FUNCTION matches(bigint[]) RENAME TO gone'); leave(301, 310); });
$node->safe_psql('shop', 'ALTER FUNCTION gone(bigint[]) RENAME TO matches');
polls_to($node, 'shop', 'SELECT jobs_pending FROM eros.status', 'all is done again', 0);

# reads that find nothing, of two handlers: one problem twice
my $find_nothing = q{SELECT count(*) FROM eros.handler h, eros.get_many(h.name, ARRAY(SELECT generate_series(100001::bigint, 101001)))};
breaks([ 'ErosProblem' ], sub { $node->safe_psql('shop', $find_nothing) }, undef, 'problem="hits_rare"');
ok(eventually(sub { scalar @{ query(qq(eros_problem_rows{problem="hits_rare",job="$_"} == 2)) } }), "which is counted by $_")
  for qw(postgres_exporter sql_exporter);

# a call that yields late
mode('late');
reload_with($node, 'eros.halt_timeout' => '1min');
leave(401, 410);
polls_to($node, 'shop', computing(), 'the worker is in a call');
breaks([ 'ErosHaltSlow' ], sub { mode('quick'); $node->safe_psql('shop', 'SELECT count(eros_touch(u)) FROM generate_series(401, 410) u'); });

# one that does not yield
reload_with($node, 'eros.halt_timeout' => '1s');
mode('catch');
leave(501, 510);
polls_to($node, 'shop', computing(), 'the worker is in a call');
breaks([ 'ErosHaltForced' ], sub { $node->safe_psql('shop', 'SELECT count(eros_touch(u)) FROM generate_series(501, 510) u'); });

# one that does not end
breaks([ 'ErosLongCall', 'ErosQueueStalled', 'ErosQueueTooOld' ], sub {
	leave(511, 520);
	polls_to($node, 'shop', computing(), 'the worker is in a call');
	reload_with($node, 'eros.max_snapshot_age' => '2s');
	$node->safe_psql('shop', q{SELECT eros.advance_clock('7 hours')});
});
reload_with($node, 'eros.max_snapshot_age' => '10min');

# a second worker, for which there is no slot
leave(521, 530);
breaks([ 'ErosWorkerSlotMissing' ], sub { reload_with($node, 'eros.workers' => 2); });
reload_with($node, 'eros.workers' => 1);
mode('quick');
polls_to($node, 'shop', 'SELECT jobs_pending FROM eros.status', 'all is done again', 0);

# CPU that cannot be paced
$node->safe_psql('shop', 'UPDATE eros.phase SET cpu_percent = 2');
reload_with($node, 'eros.cpu_cap' => 2);
breaks([ 'ErosCpuShareExceeded', 'ErosCpuCapExceeded' ], sub { mode('gulp'); leave(601, 610); });
mode('quick');
reload_with($node, 'eros.cpu_cap' => 95);
$node->safe_psql('shop', 'UPDATE eros.phase SET cpu_percent = 95');
polls_to($node, 'shop', 'SELECT jobs_pending FROM eros.status', 'all is done again', 0);

# a cache that is too small
breaks([ 'ErosCacheFull' ], sub { reload_with($node, 'eros.cache_limit' => '8kB'); leave(701, 800); });
reload_with($node, 'eros.cache_limit' => '1GB');

# a scheduler that hangs: nobody becomes idle, nothing is purged, no room is made
my $scheduler = value($node, 'shop', 'SELECT scheduler_pid FROM eros.status');
breaks([ 'ErosTouchesLost', 'ErosTrackerFull', 'ErosSweepLate', 'ErosMaintenanceLate' ], sub {
	kill 'STOP', $scheduler;
	$node->safe_psql('shop', 'SELECT count(eros_touch(u)) FROM generate_series(1, 20000) u');
	$node->safe_psql('shop', 'BEGIN READ ONLY; SELECT count(eros_touch(u)) FROM generate_series(30001, 40000) u; COMMIT');
	$node->safe_psql('shop', q{SELECT eros.advance_clock('30 minutes')});
});
kill 'CONT', $scheduler;
polls_to($node, 'shop', 'SELECT active_users < 100 FROM eros.status', 'all of them become idle');
polls_to($node, 'shop', 'SELECT jobs_pending FROM eros.status', 'and are served', 0);

# results that nobody reads
breaks([ 'ErosResultsUnread' ], sub { $node->safe_psql('shop', q{SELECT eros.advance_clock('1 day')}) });

# a pause, in which jobs grow old
breaks([ 'ErosSwitchedOff' ], sub {
	$node->safe_psql('shop', 'SELECT eros.pause()');
	leave(901, 910);
	$node->poll_query_until('shop', 'SELECT jobs_pending >= 10 FROM eros.status');
	$node->safe_psql('shop', q{SELECT eros.advance_clock('90 minutes')});
});

$node->safe_psql('shop', $find_nothing); # those before were more than a day ago

# with several problems of one severity each sample has labels of its own, and the exporters have all of them
cmp_ok(value($node, 'shop', q{SELECT count(*) FROM eros.problems() p WHERE p.severity = 'warning' AND p.problem IN ('paused', 'hits_rare')}),
	'>=', 3, 'there are several warnings');
has_all_samples($_) for qw(postgres_exporter sql_exporter);
is($http->get("http://127.0.0.1:$port{postgres}/metrics")->{status}, 200, 'the postgres_exporter has no error then');
$node->safe_psql('shop', q{SELECT eros.resume()});
polls_to($node, 'shop', 'SELECT jobs_pending FROM eros.status', 'all is done again', 0);

# a scheduler that is not started again, since the launcher hangs
my $launcher = value($node, 'shop', 'SELECT launcher_pid FROM eros.status');
breaks([ 'ErosSchedulerDown' ], sub {
	kill 'STOP', $launcher;
	$node->safe_psql('shop', 'SELECT pg_terminate_backend(scheduler_pid) FROM eros.status');
});
kill 'CONT', $launcher;

# a launcher that ends again and again
breaks([ 'ErosLauncherDown' ], sub { },
	sub { $node->safe_psql('shop', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'eros launcher'}) });

#
# The dashboard's queries give data, now that there is something of everything
#

my @empty;
for my $panel (@panels)
{
	for my $target (@{ $panel->{targets} })
	{
		my $expr = $target->{expr};

		$expr =~ s/\$(?:instance|datname)/.*/g;
		$expr =~ s/\$__(?:rate_interval|range)/10m/g;
		push @empty, "$panel->{title}: $expr" if !grep { $_->{value}[1] ne 'NaN' } @{ query($expr) };
	}
}
is_deeply(\@empty, [], 'every query of the dashboard gives data');

for my $variable (qw(instance datname))
{
	my ($series, $label) = $variables{$variable}{query}{query} =~ /^label_values\((.+), (\w+)\)$/;

	$series =~ s/\$instance/.+/;
	ok(scalar(grep { $_->{metric}{$label} } @{ query("group by ($label) ($series)") }), "the variable $variable has values");
}

# an exporter that is gone; up to here a few slow scrapes were not yet taken for that
breaks([ 'ErosMetricsMissing' ], sub {
	write_file("$dir/eros.rules.yml", $quick_rules =~ s/for: 5m$/for: 3s/mr);
	$running{prometheus}->signal('HUP');
	stop_program('sql_exporter');
}, undef, qq(instance="127.0.0.1:$port{sql}"));

#
# Nothing is left out
#

is_deeply([ grep { my $alert = $_; !grep { $_ eq $alert } @{ fired('.+') } } @alerts ],
	['ErosContended'], 'all alerts have fired, but the one that takes a contended machine');

stop_program($_) for sort keys %running;
$node->stop;
done_testing();
