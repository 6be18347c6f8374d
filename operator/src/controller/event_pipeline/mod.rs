//! `EventPipeline`: what is its own in a reconcile; the rest is shared.

mod validate;

use sluice_crds::names::Kind;
use sluice_crds::v1alpha1::EventPipeline;

super::kind::sluice_kind!(EventPipeline, Kind::EventPipeline, validate::validate);
