//! `metadata.json` -> [`Schema`]: every check that needs no parquet file.

use indexmap::IndexMap;

use super::json::Json;
use super::moments::{Moments, parse_duration, parse_time};
use super::{ColumnSchema, LinkTarget, Schema, SplitTimes, TableSchema, TaskSchema};
use crate::error::{Error, Result, suggestion};
use crate::ids::TableId;
use crate::manifest::TaskKind;
use crate::stype::{LINK, Stype};

const TOP_FIELDS: [&str; 4] = ["name", "description", "tables", "tasks"];
const TABLE_FIELDS: [&str; 6] =
    ["file", "primary_key", "temporal_column", "null_time_visible", "description", "columns"];
const COLUMN_FIELDS: [&str; 3] = ["stype", "foreign_key", "description"];
const TASK_FIELDS: [&str; 18] = [
    "kind",
    "query",
    "table",
    "anchor_table",
    "anchor_key",
    "target_column",
    "target_stype",
    "target_table",
    "top_k",
    "observation_time_column",
    "timedelta",
    "timestamps",
    "num_eval_timestamps",
    "horizon",
    "split",
    "remove_columns",
    "metric",
    "description",
];
const IGNORED: &str = "ignored";
/// How many rows an answer names unless the task says otherwise, and at most.
const TOP_K: u32 = 10;
const MAX_TOP_K: u32 = 1000;

pub(super) fn parse(bytes: &[u8], place: &str) -> Result<Schema> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].split(|&byte| byte == b'\n').count();
        Error::schema(place, format!("not UTF-8: line {line} holds other bytes; save the file as UTF-8"))
    })?;
    let json: Json = serde_json::from_str(text).map_err(|error| Error::schema(place, error.to_string()))?;
    let Json::Object(top) = &json else {
        return Err(Error::schema(place, format!("expected an object, found {}", json.kind())));
    };
    let top = Fields { place: place.to_owned(), object: top };
    top.only(&TOP_FIELDS)?;
    let tables = parse_tables(&top)?;
    let mut schema = Schema {
        name: top.required_text("name")?.to_owned(),
        description: top.text("description")?.unwrap_or_default().to_owned(),
        tables,
        tasks: Vec::new(),
    };
    link(&mut schema, &top)?;
    if let Some(tasks) = top.object("tasks")? {
        for (name, task) in tasks {
            let task = parse_task(&schema, name, &Fields::of(format!("{place}: task `{name}`"), task)?)?;
            schema.tasks.push(task);
        }
    }
    no_two_alike(place, "task", schema.tasks.iter().map(|task| task.name.as_str()))?;
    Ok(schema)
}

/// The fields of one object and how messages name it.
pub(super) struct Fields<'a> {
    pub(super) place: String,
    pub(super) object: &'a IndexMap<String, Json>,
}

impl<'a> Fields<'a> {
    fn of(place: String, value: &'a Json) -> Result<Self> {
        match value {
            Json::Object(object) => Ok(Self { place, object }),
            other => Err(Error::schema(place, format!("expected an object, found {}", other.kind()))),
        }
    }

    pub(super) fn fault(&self, message: impl Into<String>) -> Error {
        Error::schema(&self.place, message)
    }

    pub(super) fn wrong(&self, field: &str, expected: &str, found: &Json) -> Error {
        self.fault(format!("`{field}` must be {expected}, found {}", found.kind()))
    }

    pub(super) fn only(&self, known: &[&str]) -> Result<()> {
        self.object.keys().find(|key| !known.contains(&key.as_str())).map_or(Ok(()), |unknown| {
            let hint = suggestion(unknown, known.iter().copied());
            Err(self.fault(format!("unknown field `{unknown}`{hint}; the fields are {}", known.join(", "))))
        })
    }

    /// A field that is there and not null.
    pub(super) fn get(&self, field: &str) -> Option<&'a Json> {
        self.object.get(field).filter(|value| **value != Json::Null)
    }

    pub(super) fn text(&self, field: &str) -> Result<Option<&'a str>> {
        match self.get(field) {
            None => Ok(None),
            Some(Json::Text(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(field, "a string", other)),
        }
    }

    fn required_text(&self, field: &str) -> Result<&'a str> {
        match self.text(field)? {
            None => Err(self.fault(format!("`{field}` is missing"))),
            Some("") => Err(self.fault(format!("`{field}` is empty"))),
            Some(text) => Ok(text),
        }
    }

    fn flag(&self, field: &str) -> Result<bool> {
        match self.get(field) {
            None => Ok(false),
            Some(Json::Boolean(value)) => Ok(*value),
            Some(other) => Err(self.wrong(field, "true or false", other)),
        }
    }

    /// A whole number from 1 on.
    fn whole(&self, field: &str, most: u32) -> Result<Option<u32>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value {
            Json::Number(number) if number.fract() == 0.0 && (1.0..=f64::from(most)).contains(number) => {
                Ok(Some(*number as u32))
            }
            _ => Err(self.fault(format!("`{field}` must be a whole number from 1 to {most}"))),
        }
    }

    fn object(&self, field: &str) -> Result<Option<&'a IndexMap<String, Json>>> {
        match self.get(field) {
            None => Ok(None),
            Some(Json::Object(object)) => Ok(Some(object)),
            Some(other) => Err(self.wrong(field, "an object", other)),
        }
    }
}

/// Two names that differ only by case are one name to SQL.
fn no_two_alike<'a>(place: &str, what: &str, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen: IndexMap<String, &str> = IndexMap::new();
    for name in names {
        if let Some(first) = seen.insert(name.to_ascii_lowercase(), name) {
            let message = format!(
                "the {what}s `{first}` and `{name}` differ only by case, which SQL ignores; rename one of them"
            );
            return Err(Error::schema(place, message));
        }
    }
    Ok(())
}

fn parse_tables(top: &Fields<'_>) -> Result<Vec<TableSchema>> {
    let tables = top.object("tables")?.ok_or_else(|| top.fault("`tables` is missing"))?;
    if tables.is_empty() {
        return Err(top.fault("`tables` is empty; describe at least one table"));
    }
    no_two_alike(&top.place, "table", tables.keys().map(String::as_str))?;
    tables
        .iter()
        .map(|(name, table)| {
            if name.is_empty() {
                return Err(top.fault("a name in `tables` is empty; give the table a name"));
            }
            parse_table(name, &Fields::of(format!("{}: table `{name}`", top.place), table)?)
        })
        .collect()
}

fn parse_table(name: &str, fields: &Fields<'_>) -> Result<TableSchema> {
    fields.only(&TABLE_FIELDS)?;
    let described = fields.object("columns")?.ok_or_else(|| fields.fault("`columns` is missing"))?;
    no_two_alike(&fields.place, "column", described.keys().map(String::as_str))?;
    let mut columns = Vec::with_capacity(described.len());
    for (column, description) in described {
        let place = format!("{}, column `{column}`", fields.place);
        let description = Fields::of(place, description)?;
        description.only(&COLUMN_FIELDS)?;
        columns.push(ColumnSchema {
            name: column.clone(),
            stype: parse_stype(&description, "stype")?,
            foreign_key: None,
            description: description.text("description")?.unwrap_or_default().to_owned(),
            may_be_list: false,
        });
    }
    let table = TableSchema {
        name: name.to_owned(),
        description: fields.text("description")?.unwrap_or_default().to_owned(),
        files: parse_files(name, fields)?,
        primary_key: fields.text("primary_key")?.map(str::to_owned),
        temporal_column: fields.text("temporal_column")?.map(str::to_owned),
        null_time_visible: fields.flag("null_time_visible")?,
        columns,
    };
    check_role(&table, fields, "primary_key", table.primary_key.as_deref(), Stype::Identifier)?;
    check_role(&table, fields, "temporal_column", table.temporal_column.as_deref(), Stype::Timestamp)?;
    Ok(table)
}

/// Checks that the column a table names for a role exists and has the stype of the role.
fn check_role(table: &TableSchema, fields: &Fields<'_>, role: &str, name: Option<&str>, stype: Stype) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    let Some(column) = table.column(name) else {
        let hint = suggestion(name, table.columns.iter().map(|column| column.name.as_str()));
        return Err(fields.fault(format!("`{role}` names the unknown column `{name}`{hint}")));
    };
    if column.stype == Some(stype) {
        return Ok(());
    }
    let found = column.stype.map_or(IGNORED, Stype::name);
    Err(fields.fault(format!("the {role} `{name}` must have stype {stype}, found {found}; set its stype to {stype}")))
}

/// The stype in a field; `None` where it is `ignored`.
fn parse_stype(fields: &Fields<'_>, field: &str) -> Result<Option<Stype>> {
    let name = fields.required_text(field)?;
    if name == IGNORED {
        return Ok(None);
    }
    let known = || Stype::ALL.into_iter().map(Stype::name).chain([IGNORED]);
    Stype::from_name(name).map(Some).ok_or_else(|| {
        let all: Vec<&str> = known().collect();
        let hint = suggestion(name, known());
        fields.fault(format!("unknown {field} `{name}`{hint}; the stypes are {}", all.join(", ")))
    })
}

fn parse_files(name: &str, fields: &Fields<'_>) -> Result<Vec<String>> {
    let files = match fields.get("file") {
        None => vec![format!("{name}.parquet")],
        Some(Json::Text(file)) => vec![file.clone()],
        Some(Json::List(list)) if !list.is_empty() => list
            .iter()
            .map(|file| match file {
                Json::Text(file) => Ok(file.clone()),
                other => Err(fields.wrong("file", "a list of strings", other)),
            })
            .collect::<Result<_>>()?,
        Some(Json::List(_)) => return Err(fields.fault("`file` is an empty list; name at least one parquet file")),
        Some(other) => return Err(fields.wrong("file", "a string or a list of strings", other)),
    };
    files.iter().try_for_each(|file| check_path(fields, "file", file))?;
    Ok(files)
}

/// A path of the user's stays inside the input folder.
fn check_path(fields: &Fields<'_>, field: &str, path: &str) -> Result<()> {
    let reason = if path.is_empty() {
        "is empty"
    } else if path.starts_with('/') {
        "is absolute"
    } else if path.split('/').any(|part| part == "..") {
        "leaves the folder through `..`"
    } else if path.contains('\0') {
        "holds a NUL character"
    } else {
        return Ok(());
    };
    let shown = path.escape_debug();
    Err(fields.fault(format!("`{field}`: `{shown}` {reason}; give a path relative to the input folder and inside it")))
}

/// Resolves the foreign keys, once all tables are known.
fn link(schema: &mut Schema, top: &Fields<'_>) -> Result<()> {
    let described = top.object("tables")?.into_iter().flatten();
    for (table, (name, description)) in described.enumerate() {
        let description = Fields::of(format!("{}: table `{name}`", top.place), description)?;
        for (column, (name, fields)) in description.object("columns")?.into_iter().flatten().enumerate() {
            let fields = Fields::of(format!("{}, column `{name}`", description.place), fields)?;
            let Some(reference) = fields.text("foreign_key")? else { continue };
            let stype = schema.tables[table].columns[column].stype;
            if stype != Some(Stype::Identifier) {
                let found = stype.map_or(IGNORED, Stype::name);
                let message =
                    format!("a foreign key must have stype identifier, found {found}; set its stype to identifier");
                return Err(fields.fault(message));
            }
            let parent = find_parent(schema, &fields, reference)?;
            schema.tables[table].columns[column].foreign_key = Some(parent);
        }
    }
    Ok(())
}

/// The table whose primary key `reference` (`table.column`) names; table and column names may hold dots themselves.
fn find_parent(schema: &Schema, fields: &Fields<'_>, reference: &str) -> Result<TableId> {
    let splits: Vec<(usize, &str)> = schema
        .tables
        .iter()
        .enumerate()
        .filter_map(|(idx, table)| Some((idx, reference.strip_prefix(&table.name)?.strip_prefix('.')?)))
        .collect();
    let is_key = |&&(idx, column): &&(usize, &str)| schema.tables[idx].primary_key.as_deref() == Some(column);
    let mut matches = splits.iter().filter(is_key);
    match (matches.next(), matches.next()) {
        (Some(&(idx, _)), None) => return Ok(TableId::from(idx)),
        (Some(_), Some(_)) => {
            return Err(
                fields.fault(format!("foreign key `{reference}` can be read as two tables; rename one of them"))
            );
        }
        _ => {}
    }
    if let Some(&(idx, column)) = splits.last() {
        let parent = &schema.tables[idx];
        let names = parent.columns.iter().map(|column| column.name.as_str());
        return Err(fields.fault(match &parent.primary_key {
            None => {
                format!("foreign key `{reference}`: table `{}` has no primary key; name its primary_key", parent.name)
            }
            Some(key) if parent.column(column).is_some() => format!(
                "foreign key `{reference}` must point to the primary key of `{0}`; did you mean `{0}.{key}`?",
                parent.name
            ),
            Some(_) => format!(
                "foreign key `{reference}`: table `{}` has no column `{column}`{}",
                parent.name,
                suggestion(column, names)
            ),
        }));
    }
    let keys: Vec<String> = schema
        .tables
        .iter()
        .filter_map(|table| Some(format!("{}.{}", table.name, table.primary_key.as_ref()?)))
        .collect();
    let hint = suggestion(reference, keys.iter().map(String::as_str));
    Err(fields.fault(match reference.split_once('.') {
        None => format!("foreign key `{reference}` must have the form `table.column`{hint}"),
        Some((table, _)) => format!("foreign key `{reference}`: there is no table `{table}`{hint}"),
    }))
}

fn parse_task(schema: &Schema, name: &str, fields: &Fields<'_>) -> Result<TaskSchema> {
    if name.is_empty() {
        return Err(fields.fault("the name of a task in `tasks` is empty; give it a name"));
    }
    fields.only(&TASK_FIELDS)?;
    let anchor_table = find_table(schema, fields, "anchor_table", fields.required_text("anchor_table")?)?;
    let anchor = &schema.tables[anchor_table.idx()];
    let target_column = fields.required_text("target_column")?;
    let (query, table) = (fields.text("query")?, fields.text("table")?);
    let kind = parse_kind(fields, anchor, target_column, query, table)?;
    let links = parse_links(schema, fields, kind)?;
    let target_stype = match links {
        Some(_) => Stype::Identifier,
        None => parse_target_stype(fields, kind, anchor, target_column)?,
    };
    if kind == TaskKind::Table && anchor.primary_key.is_none() {
        return Err(fields.fault(format!("anchor table `{}` has no primary key; name its primary_key", anchor.name)));
    }
    let observation_time_column = fields.text("observation_time_column")?;
    if kind == TaskKind::Cell {
        check_role(anchor, fields, "observation_time_column", observation_time_column, Stype::Timestamp)?;
    }
    let split = parse_split(fields)?;
    if split.is_some() && observation_time_column.is_none() && anchor.temporal_column.is_none() {
        return Err(fields.fault("`split` needs times: name an observation_time_column, or leave `split` out"));
    }
    let names = schema.tables.iter().map(|table| table.name.as_str());
    let moments = Moments::parse(fields, query, split, names)?;
    let anchor_key = match (kind, fields.text("anchor_key")?) {
        (_, Some(key)) => Some(key.to_owned()),
        (TaskKind::Table, None) => anchor.primary_key.clone(),
        (TaskKind::Cell, None) => None,
    };
    Ok(TaskSchema {
        name: name.to_owned(),
        description: fields.text("description")?.unwrap_or_default().to_owned(),
        kind,
        query: query.map(str::to_owned),
        table: table.map(str::to_owned),
        anchor_table,
        anchor_key,
        target_column: target_column.to_owned(),
        target_stype,
        links,
        observation_time_column: observation_time_column.map(str::to_owned),
        horizon_us: parse_duration(fields, "horizon")?.or(moments.timedelta_us),
        timedelta_us: moments.timedelta_us,
        timestamps: moments.timestamps,
        num_eval_timestamps: moments.num_eval_timestamps,
        split,
        remove_columns: parse_removed(schema, fields)?,
        metric: fields.text("metric")?.map(str::to_owned),
    })
}

fn find_table(schema: &Schema, fields: &Fields<'_>, field: &str, name: &str) -> Result<TableId> {
    schema.table(name).map(|(id, _)| id).ok_or_else(|| {
        let hint = suggestion(name, schema.tables.iter().map(|table| table.name.as_str()));
        fields.fault(format!("`{field}` names the unknown table `{name}`{hint}"))
    })
}

fn parse_kind(
    fields: &Fields<'_>,
    anchor: &TableSchema,
    target: &str,
    query: Option<&str>,
    table: Option<&str>,
) -> Result<TaskKind> {
    let kind = match (query, table) {
        (Some(_), Some(_)) => return Err(fields.fault("both `query` and `table` are given; keep one of them")),
        (Some(query), None) if query.trim().is_empty() => {
            return Err(fields.fault("`query` is empty; write one SELECT statement, or leave `query` out"));
        }
        (Some(_), None) => TaskKind::Table,
        (None, Some(table)) => {
            check_path(fields, "table", table)?;
            TaskKind::Table
        }
        (None, None) if anchor.column(target).is_some() => TaskKind::Cell,
        (None, None) => {
            let hint = suggestion(target, anchor.columns.iter().map(|column| column.name.as_str()));
            return Err(fields.fault(format!(
                "`target_column` `{target}` is no column of `{}`{hint}; give a `query` or a `table` of labels, or name a column to fill in",
                anchor.name
            )));
        }
    };
    let expected = match kind {
        TaskKind::Table => "table",
        TaskKind::Cell => "cell",
    };
    match fields.text("kind")? {
        Some(found) if found != expected => {
            Err(fields.fault(format!("`kind` is `{found}`, but the task is of kind `{expected}`; leave `kind` out")))
        }
        _ => Ok(kind),
    }
}

fn parse_target_stype(fields: &Fields<'_>, kind: TaskKind, anchor: &TableSchema, target: &str) -> Result<Stype> {
    let given = match fields.get("target_stype") {
        None => None,
        Some(_) => Some(parse_stype(fields, "target_stype")?),
    };
    let stype = match (kind, anchor.column(target)) {
        (TaskKind::Cell, Some(column)) => {
            if given.is_some_and(|given| given != column.stype) {
                let found = given.flatten().map_or(IGNORED, Stype::name);
                let own = column.stype.map_or(IGNORED, Stype::name);
                return Err(fields.fault(format!(
                    "`target_stype` is {found}, but column `{target}` of `{}` is {own}; leave `target_stype` out",
                    anchor.name
                )));
            }
            column.stype
        }
        _ => given.ok_or_else(|| fields.fault("`target_stype` is missing; say what the labels are, as boolean"))?,
    };
    match stype {
        Some(Stype::Identifier) | None => {
            let found = stype.map_or(IGNORED, Stype::name);
            Err(fields.fault(format!(
                "the target `{target}` is {found}, which cannot be predicted; a target is numerical, timestamp, boolean, categorical, text or {LINK}"
            )))
        }
        Some(stype) => Ok(stype),
    }
}

/// What a link task predicts; `None` for tasks of other kinds.
fn parse_links(schema: &Schema, fields: &Fields<'_>, kind: TaskKind) -> Result<Option<LinkTarget>> {
    let (table, top_k) = (fields.text("target_table")?, fields.whole("top_k", MAX_TOP_K)?);
    if fields.text("target_stype")? != Some(LINK) {
        let given = table.map(|_| "target_table").or(top_k.map(|_| "top_k"));
        return given.map_or(Ok(None), |field| {
            Err(fields.fault(format!("`{field}` belongs to link tasks; set target_stype to {LINK}, or leave it out")))
        });
    }
    if kind == TaskKind::Cell {
        return Err(fields.fault("a link task needs labels; give a `query` or a `table` of lists of keys"));
    }
    let name = table.ok_or_else(|| {
        fields.fault("`target_table` is missing; name the table whose primary keys the labels of a link task list")
    })?;
    let table = find_table(schema, fields, "target_table", name)?;
    if schema.tables[table.idx()].primary_key.is_none() {
        return Err(fields.fault(format!("target table `{name}` has no primary key; name its primary_key")));
    }
    Ok(Some(LinkTarget { table, top_k: top_k.unwrap_or(TOP_K) }))
}

fn parse_split(fields: &Fields<'_>) -> Result<Option<SplitTimes>> {
    let Some(value) = fields.get("split") else { return Ok(None) };
    let split = Fields::of(format!("{}, `split`", fields.place), value)?;
    split.only(&["val", "test"])?;
    let time = |field: &str| parse_time(&split, field, split.required_text(field)?);
    let times = SplitTimes { val_us: time("val")?, test_us: time("test")? };
    if times.val_us > times.test_us {
        return Err(split.fault("`val` is later than `test`; validation comes before test"));
    }
    Ok(Some(times))
}

fn parse_removed(schema: &Schema, fields: &Fields<'_>) -> Result<Vec<(TableId, usize)>> {
    let expected = "a list of [table, column] pairs";
    let list = match fields.get("remove_columns") {
        None => return Ok(Vec::new()),
        Some(Json::List(list)) => list,
        Some(other) => return Err(fields.wrong("remove_columns", expected, other)),
    };
    list.iter()
        .map(|pair| {
            let Json::List(pair) = pair else { return Err(fields.wrong("remove_columns", expected, pair)) };
            let [Json::Text(table), Json::Text(column)] = pair.as_slice() else {
                return Err(fields.fault(format!("`remove_columns` must be {expected} of strings")));
            };
            let id = find_table(schema, fields, "remove_columns", table)?;
            let columns = &schema.tables[id.idx()].columns;
            let position = columns.iter().position(|known| known.name == *column).ok_or_else(|| {
                let hint = suggestion(column, columns.iter().map(|column| column.name.as_str()));
                fields.fault(format!("`remove_columns` names the unknown column `{column}` of `{table}`{hint}"))
            })?;
            Ok((id, position))
        })
        .collect()
}
