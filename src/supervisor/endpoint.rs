//! From configuration to connections and rules.

use crate::config::{
    DatabaseConfig, ExpressionFilter, FilterRule as ConfigFilter, Pem as ConfigPem, SecretKey, Security, SourceConfig,
    SubtaskConfig,
};
use crate::error::Failure;
use crate::model::Flavor;
use crate::mysql::{Endpoint, Pem, TlsFiles};
use crate::transform::{
    BlockAllowRules, ExpressionRule, FilterAction, FilterRule, OnlineDdlRules, RouteRule, Rules, Transform,
};

/// An endpoint with the password in plain text.
pub fn endpoint(database: &DatabaseConfig, key: Option<&SecretKey>) -> Endpoint {
    Endpoint {
        host: database.host.clone(),
        port: database.port,
        user: database.user.clone(),
        password: database.plain_password(key),
        session: database.session.clone(),
        tls: database.security.as_ref().map(tls_files),
    }
}

/// Where certificates are.
pub fn tls_files(security: &Security) -> TlsFiles {
    let pem = |pem: &Option<ConfigPem>| {
        pem.as_ref().map(|pem| match pem {
            ConfigPem::File(path) => Pem::Path(path.clone()),
            ConfigPem::Inline(text) => Pem::Inline(text.expose().as_bytes().to_vec()),
        })
    };
    TlsFiles {
        ca: pem(&security.ca),
        cert: pem(&security.cert),
        key: pem(&security.key),
        allowed_cn: security.cert_allowed_cn.clone(),
    }
}

/// Compiles the filters of a source, which all its tasks inherit.
pub fn compile_filters(source: &SourceConfig) -> Result<(), Vec<Failure>> {
    let rules = Rules {
        block_allow: BlockAllowRules::default(),
        routes: Vec::new(),
        filters: source.filters.iter().map(filter).collect(),
        expressions: Vec::new(),
        online: OnlineDdlRules::default(),
        case_sensitive: source.case_sensitive,
        meta_schema: String::new(),
        flavor: Flavor::MySql,
    };
    Transform::new(&rules).map(|_| ())
}

/// A subtask's rules for names.
pub fn rules(subtask: &SubtaskConfig, flavor: Flavor) -> Rules {
    let pairs = |tables: &[crate::config::TablePattern]| {
        tables.iter().map(|table| (table.db.clone(), table.tbl.clone())).collect::<Vec<_>>()
    };
    let list = &subtask.block_allow_list;
    Rules {
        block_allow: BlockAllowRules {
            do_dbs: list.do_dbs.clone(),
            do_tables: pairs(&list.do_tables),
            ignore_dbs: list.ignore_dbs.clone(),
            ignore_tables: pairs(&list.ignore_tables),
        },
        routes: subtask
            .routes
            .iter()
            .map(|route| RouteRule {
                schema_pattern: route.schema_pattern.clone(),
                table_pattern: route.table_pattern.clone(),
                target_schema: route.target_schema.clone(),
                target_table: route.target_table.clone(),
            })
            .collect(),
        filters: subtask.filter_rules.iter().map(filter).collect(),
        expressions: subtask.expression_filters.iter().map(expression).collect(),
        online: match subtask.online_ddl {
            true => {
                OnlineDdlRules { shadow: subtask.shadow_table_rules.clone(), trash: subtask.trash_table_rules.clone() }
            }
            false => OnlineDdlRules::default(),
        },
        case_sensitive: subtask.case_sensitive,
        meta_schema: subtask.meta_schema.clone(),
        flavor,
    }
}

fn filter(filter: &ConfigFilter) -> FilterRule {
    FilterRule {
        schema_pattern: filter.schema_pattern.clone(),
        table_pattern: filter.table_pattern.clone(),
        events: filter.events.clone(),
        sql_pattern: filter.sql_pattern.clone(),
        action: match filter.action.as_str() {
            "Ignore" => FilterAction::Ignore,
            "Error" => FilterAction::Error,
            _ => FilterAction::Do,
        },
    }
}

fn expression(filter: &ExpressionFilter) -> ExpressionRule {
    ExpressionRule {
        schema: filter.schema.clone(),
        table: filter.table.clone(),
        insert_value: filter.insert_value.clone(),
        update_old_value: filter.update_old_value.clone(),
        update_new_value: filter.update_new_value.clone(),
        delete_value: filter.delete_value.clone(),
    }
}
